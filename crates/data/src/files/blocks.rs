//! Files that are read a block at a time, the blocks of a strand one after another; the blocks read last are kept.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::locality::{BLOCK_BYTES, Blocks, WINDOW};

/// Bytes of blocks that are kept: two windows and a half.
const KEPT_BYTES: u64 = BLOCK_BYTES * WINDOW as u64 * 5 / 2;
/// Strands that are kept open between their blocks.
const OPEN: usize = 8;

/// The files of one block, each its bytes or why it has none.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub bytes: Vec<u8>,
    pub files: Vec<Result<Range<usize>, String>>,
}

/// Where blocks come from.
pub(crate) trait Strands: Send + Sync {
    /// A strand being read.
    type Stream: Send;

    /// Begins to read a strand.
    fn open(&self, strand: usize) -> Result<Self::Stream, String>;

    /// Reads the next block of a strand, which is block `number` of all.
    fn next(&self, stream: &mut Self::Stream, number: usize) -> Result<Block, String>;
}

/// The blocks of [`Strands`].
pub(crate) struct BlockReader<S: Strands> {
    source: S,
    blocks: Arc<Blocks>,
    kept: Mutex<Kept>,
    /// One per strand. Whoever reads a strand holds its lock.
    streams: Vec<Mutex<Reading<S::Stream>>>,
    open: Mutex<VecDeque<usize>>,
}

enum Reading<T> {
    Not,
    /// The stream, before block `next`.
    At {
        stream: T,
        next: usize,
    },
    /// From block `from` on nothing can be read.
    Broken {
        from: usize,
        reason: String,
    },
}

#[derive(Default)]
struct Kept {
    blocks: HashMap<usize, (Arc<Block>, u64)>,
    bytes: u64,
    uses: u64,
}

impl Kept {
    fn get(&mut self, number: usize) -> Option<Arc<Block>> {
        self.uses += 1;
        let (block, used) = self.blocks.get_mut(&number)?;
        *used = self.uses;
        Some(Arc::clone(block))
    }

    fn put(&mut self, number: usize, block: &Arc<Block>) {
        self.uses += 1;
        self.bytes += block.bytes.len() as u64;
        if let Some((before, _)) = self.blocks.insert(number, (Arc::clone(block), self.uses)) {
            self.bytes -= before.bytes.len() as u64;
        }
        while self.bytes > KEPT_BYTES && self.blocks.len() > 1 {
            let oldest = self.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(&number, _)| number);
            if let Some((block, _)) = oldest.and_then(|oldest| self.blocks.remove(&oldest)) {
                self.bytes -= block.bytes.len() as u64;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks hold is right between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Strands> BlockReader<S> {
    pub fn new(source: S, blocks: Arc<Blocks>) -> Self {
        let streams = (0..blocks.strands.len()).map(|_| Mutex::new(Reading::Not)).collect();
        Self { source, blocks, kept: Mutex::default(), streams, open: Mutex::default() }
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Makes `out` the bytes of file `index`.
    pub fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let number = self.blocks.block_of(index as u32);
        let block = self.block(number)?;
        let place = index - self.blocks.starts[number] as usize;
        let range = block.files.get(place).cloned().ok_or("its block holds fewer files than it should")??;
        out.clear();
        out.extend_from_slice(block.bytes.get(range).ok_or("lies beyond the end of its block")?);
        Ok(())
    }

    fn block(&self, number: usize) -> Result<Arc<Block>, String> {
        if let Some(block) = lock(&self.kept).get(number) {
            return Ok(block);
        }
        let strand = self.blocks.strand_of(number);
        let mut reading = lock(&self.streams[strand]);
        // Another thread may have read it meanwhile.
        if let Some(block) = lock(&self.kept).get(number) {
            return Ok(block);
        }
        if let Reading::Broken { from, reason } = &*reading
            && number >= *from
        {
            return Err(reason.clone());
        }
        let (mut stream, mut next) = match std::mem::replace(&mut *reading, Reading::Not) {
            Reading::At { stream, next } if next <= number => (stream, next),
            _ => {
                let first = self.blocks.blocks_of(strand).start;
                (self.source.open(strand).inspect_err(|reason| *reading = broken(first, reason))?, first)
            }
        };
        loop {
            let block = Arc::new(
                self.source.next(&mut stream, next).inspect_err(|reason| *reading = broken(next, reason))?,
            );
            // What was passed over lies in the same window, unless the reading began in the middle of an epoch.
            if number - next < WINDOW {
                lock(&self.kept).put(next, &block);
            }
            next += 1;
            if next > number {
                if self.blocks.blocks_of(strand).contains(&next) {
                    *reading = Reading::At { stream, next };
                    drop(reading);
                    self.keep_open(strand);
                }
                return Ok(block);
            }
        }
    }

    /// Notes that a strand is open, and closes the one that was read longest ago if there are too many.
    fn keep_open(&self, strand: usize) {
        let closed = {
            let mut open = lock(&self.open);
            open.retain(|&other| other != strand);
            open.push_back(strand);
            if open.len() > OPEN { open.pop_front() } else { None }
        };
        // One that is being read is in use and stays.
        if let Some(mut reading) = closed.and_then(|strand| self.streams[strand].try_lock().ok())
            && matches!(*reading, Reading::At { .. })
        {
            *reading = Reading::Not;
        }
    }
}

fn broken<T>(from: usize, reason: &str) -> Reading<T> {
    Reading::Broken { from, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Strands of 4 blocks of 3 files; the file's bytes are its number. Strand 1 breaks in its third block.
    #[derive(Default)]
    struct Counting {
        opened: AtomicUsize,
        read: AtomicUsize,
    }

    impl Strands for Counting {
        type Stream = usize;

        fn open(&self, strand: usize) -> Result<usize, String> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(4 * strand)
        }

        fn next(&self, stream: &mut usize, number: usize) -> Result<Block, String> {
            assert_eq!(*stream, number);
            *stream += 1;
            self.read.fetch_add(1, Ordering::Relaxed);
            if number == 6 {
                return Err("torn".to_owned());
            }
            let bytes = (0..3).map(|file| (number * 3 + file) as u8).collect();
            Ok(Block { bytes, files: (0..3).map(|file| Ok(file..file + 1)).collect() })
        }
    }

    fn reader() -> BlockReader<Counting> {
        let blocks = Blocks {
            starts: (0..80).map(|block| block * 3).collect(),
            strands: (0..20).map(|strand| strand * 4).collect(),
            len: 240,
        };
        BlockReader::new(Counting::default(), Arc::new(blocks))
    }

    #[test]
    fn files_come_in_any_order_and_strands_are_read_forward() {
        let (reader, mut out) = (reader(), Vec::new());
        for index in [35, 24, 27, 30, 26, 33] {
            reader.read(index, &mut out).unwrap();
            assert_eq!(out, [index as u8]);
        }
        // Strand 2 once, from its first block to its last.
        assert_eq!(reader.source.opened.load(Ordering::Relaxed), 1);
        assert_eq!(reader.source.read.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_torn_strand_is_good_up_to_the_tear() {
        let (reader, mut out) = (reader(), Vec::new());
        for _ in 0..3 {
            assert_eq!(reader.read(20, &mut out).unwrap_err(), "torn");
            assert_eq!(reader.read(23, &mut out).unwrap_err(), "torn");
            reader.read(17, &mut out).unwrap();
        }
        assert_eq!(reader.source.opened.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn many_threads_read_the_same() {
        let reader = reader();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let reader = &reader;
                scope.spawn(move || {
                    let mut out = Vec::new();
                    for step in 0..240 {
                        let index = (step * 7 + thread * 61) % 240;
                        let read = reader.read(index, &mut out);
                        assert!(out == [index as u8] || (read.is_err() && (18..24).contains(&index)));
                    }
                });
            }
        });
    }
}
