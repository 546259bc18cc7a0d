//! Files that are read a block at a time, the blocks of a strand one after another; recent blocks are cached.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decode::{Claim, room_for_file};
use crate::fault::{Fault, Unread};
use crate::locality::{BLOCK_BYTES, Blocks, WINDOW};

/// The most bytes of blocks that are cached: two and a half windows.
const KEPT_BYTES: u64 = BLOCK_BYTES * WINDOW as u64 * 5 / 2;
/// The most strands that stay open between reads.
const OPEN: usize = 8;

/// The files of one block: for each, its range in `bytes` or why it cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub bytes: Vec<u8>,
    pub files: Vec<Result<Range<usize>, String>>,
}

/// Where blocks come from.
pub(crate) trait Strands: Send + Sync {
    /// A strand being read.
    type Stream: Send;

    /// The file that a strand is in.
    fn path(&self, strand: usize) -> &Path;

    /// Begins to read a strand. I/O errors of the system, now and later, are noted in `fault`.
    fn open(&self, strand: usize, fault: &Fault) -> Result<Self::Stream, String>;

    /// Reads the next block of a strand, block `number` of the whole data set.
    fn next(&self, stream: &mut Self::Stream, number: usize) -> Result<Block, String>;
}

/// The blocks of [`Strands`].
pub(crate) struct BlockReader<S: Strands> {
    source: S,
    blocks: Arc<Blocks>,
    kept: Mutex<Kept>,
    strands: Vec<Strand<S::Stream>>,
    open: Mutex<VecDeque<usize>>,
}

struct Strand<T> {
    /// Locked by the thread that reads the strand.
    reading: Mutex<Reading<T>>,
    /// The I/O error, if any, since the strand was last opened.
    fault: Fault,
}

enum Reading<T> {
    Not,
    /// The stream, before block `next`.
    At {
        stream: T,
        next: usize,
    },
    /// Nothing can be read from block `from` on.
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
    // The guarded values are consistent between any two statements that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Strands> BlockReader<S> {
    pub fn new(source: S, blocks: Arc<Blocks>) -> Self {
        let strand = |_| Strand { reading: Mutex::new(Reading::Not), fault: Fault::default() };
        let strands = (0..blocks.strands.len()).map(strand).collect();
        Self { source, blocks, kept: Mutex::default(), strands, open: Mutex::default() }
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Reads the bytes of file `index` into `out`, and returns the room that they take.
    pub fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        let number = self.blocks.block_of(index as u32);
        let block = self.block(number)?;
        let place = index - self.blocks.starts[number] as usize;
        let range = block.files.get(place).cloned().ok_or("its block holds fewer files than it should")??;
        let bytes = block.bytes.get(range).ok_or("lies beyond the end of its block")?;
        let room = room_for_file(bytes.len() as u64)?;
        out.clear();
        out.extend_from_slice(bytes);
        Ok(room)
    }

    /// Fails if an I/O error of the system stopped the reading of the strand of file `index`.
    pub fn probe(&self, index: usize) -> Result<(), Unread> {
        let strand = self.blocks.strand_of(self.blocks.block_of(index as u32));
        match self.strands[strand].fault.get() {
            Some(source) => Err(Unread { path: self.source.path(strand).to_owned(), source, whole: true }),
            None => Ok(()),
        }
    }

    fn block(&self, number: usize) -> Result<Arc<Block>, String> {
        if let Some(block) = lock(&self.kept).get(number) {
            return Ok(block);
        }
        let strand = self.blocks.strand_of(number);
        let Strand { reading, fault } = &self.strands[strand];
        let mut reading = lock(reading);
        // Another thread may have read it meanwhile.
        if let Some(block) = lock(&self.kept).get(number) {
            return Ok(block);
        }
        if let Reading::Broken { from, reason } = &*reading
            && number >= *from
        {
            return Err(reason.clone());
        }
        // An I/O error may pass: the strand is opened again next time.
        let torn = |from, reason: &str| match fault.get() {
            Some(_) => Reading::Not,
            None => Reading::Broken { from, reason: reason.to_owned() },
        };
        let (mut stream, mut next) = match std::mem::replace(&mut *reading, Reading::Not) {
            Reading::At { stream, next } if next <= number => (stream, next),
            _ => {
                let first = self.blocks.blocks_of(strand).start;
                fault.clear();
                let opened = self.source.open(strand, fault);
                (opened.inspect_err(|reason| *reading = torn(first, reason))?, first)
            }
        };
        loop {
            let read = self.source.next(&mut stream, next);
            // After an I/O error, a block may look good and hold only some of its files.
            let read = fault.get().map_or(read, |error| Err(error.to_string()));
            let block = Arc::new(read.inspect_err(|reason| *reading = torn(next, reason))?);
            // Blocks on the way lie in the same window, unless reading began in the middle of an epoch.
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

    /// Notes that a strand is open, and closes the least recently read one if there are too many.
    fn keep_open(&self, strand: usize) {
        let closed = {
            let mut open = lock(&self.open);
            open.retain(|&other| other != strand);
            open.push_back(strand);
            if open.len() > OPEN { open.pop_front() } else { None }
        };
        // A strand that is being read right now stays open.
        if let Some(mut reading) = closed.and_then(|strand| self.strands[strand].reading.try_lock().ok())
            && matches!(*reading, Reading::At { .. })
        {
            *reading = Reading::Not;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locality::Locality;
    use simclr_augment::Stream;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Strands of 4 blocks of 3 files; the file's bytes are its number. Strand 1 breaks in its third block, and the
    /// system may fail in the second of strand 2.
    #[derive(Default)]
    struct Counting {
        opened: AtomicUsize,
        read: AtomicUsize,
        failing: AtomicBool,
    }

    impl Strands for Counting {
        type Stream = (usize, Fault);

        fn path(&self, _: usize) -> &Path {
            Path::new("archive")
        }

        fn open(&self, strand: usize, fault: &Fault) -> Result<Self::Stream, String> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok((4 * strand, fault.clone()))
        }

        fn next(&self, (next, fault): &mut Self::Stream, number: usize) -> Result<Block, String> {
            assert_eq!(*next, number);
            *next += 1;
            if number == 9 && self.failing.load(Ordering::Relaxed) {
                // A reader in between may swallow the error.
                let _ = fault.note::<()>(Err(io::Error::from_raw_os_error(5)));
                return Ok(Block::default());
            }
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
            ..Blocks::default()
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
        // Strand 2 is opened once and read from its first block to its last.
        assert_eq!(reader.source.opened.load(Ordering::Relaxed), 1);
        assert_eq!(reader.source.read.load(Ordering::Relaxed), 4);
    }

    /// One strand of 300 blocks of full size, each of 3 files.
    #[derive(Default)]
    struct Long {
        opened: AtomicUsize,
    }

    impl Strands for Long {
        type Stream = ();

        fn path(&self, _: usize) -> &Path {
            Path::new("archive")
        }

        fn open(&self, _: usize, _: &Fault) -> Result<(), String> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn next(&self, _: &mut (), number: usize) -> Result<Block, String> {
            // Zeros that nobody touches take no memory.
            let mut bytes = vec![0; BLOCK_BYTES as usize];
            bytes[0] = number as u8;
            Ok(Block { bytes, files: vec![Ok(0..1); 3] })
        }
    }

    #[test]
    fn held_out_images_are_read_in_one_pass() {
        let blocks = Blocks {
            starts: (0..300).map(|block| block * 3).collect(),
            strands: vec![0],
            len: 900,
            ..Blocks::default()
        };
        let reader = BlockReader::new(Long::default(), Arc::new(blocks));
        let whole = Locality::blocks(Arc::clone(reader.blocks()));
        let held_out = whole.draw(48, &mut Stream::new(1, 2, 3, 4));
        let (of_blocks, mut out) = (whole.restrict(&held_out), Vec::new());
        for epoch in 0..3 {
            for at in of_blocks.order(7, epoch) {
                let image = held_out[at as usize];
                reader.read(image as usize, &mut out).unwrap();
                assert_eq!(out, [(image / 3) as u8]);
            }
        }
        assert_eq!(reader.source.opened.load(Ordering::Relaxed), 3);
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
    fn what_the_system_did_not_read_is_read_another_time() {
        let (reader, mut out) = (reader(), Vec::new());
        reader.source.failing.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            reader.read(24, &mut out).unwrap();
            assert!(reader.read(27, &mut out).is_err() && reader.read(30, &mut out).is_err());
            let unread = reader.probe(27).unwrap_err();
            assert_eq!((&*unread.path, unread.source.raw_os_error()), (Path::new("archive"), Some(5)));
            assert!(unread.whole && reader.probe(12).is_ok());
        }
        reader.source.failing.store(false, Ordering::Relaxed);
        reader.read(27, &mut out).unwrap();
        assert!(out == [27] && reader.probe(27).is_ok());
        // A torn strand is not an I/O error.
        assert!(reader.read(20, &mut out).is_err() && reader.probe(20).is_ok());
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
