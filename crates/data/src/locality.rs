//! Which images are best read together, and epoch orders that keep them together.
//!
//! A file in a folder can be read by itself. Images in a compressed archive or in a Parquet file are read a block at a
//! time, and the blocks of one strand (a shard, a row group) one after another. An epoch's order of such images
//! therefore shuffles the strands, reads four at once, and shuffles the images within windows of 16 blocks; memory
//! holds the blocks of about two windows. The order is a function of (seed, epoch) and of how the images lie, like
//! every other.
//!
//! A strand is often in the order of the classes: what is held out comes from many of its blocks, and is still read in
//! one pass through each strand.

use std::ops::Range;
use std::sync::Arc;

use simclr_augment::Stream;

use crate::permutation::{ORDER, shuffle};

/// The approximate number of bytes of files in a block.
pub(crate) const BLOCK_BYTES: u64 = 8 << 20;
/// The number of blocks whose images are shuffled together.
pub(crate) const WINDOW: usize = 16;
/// The fewest blocks that images are held out of, where there are more: as many as memory holds.
const SPREAD: usize = 2 * WINDOW;
/// The number of strands that are read at the same time.
const OPEN: usize = 4;
/// Replaces the number of a part in the key of the stream that mixes parts.
const MIX: u64 = u64::MAX;

/// How the images of a data set are laid out in storage. Data sets that wrap others pass on their layout.
#[derive(Clone, Debug, Default)]
pub struct Locality {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    len: u32,
    /// `None`: each image can be read by itself.
    blocks: Option<Arc<Blocks>>,
}

/// Images cut into blocks, blocks into strands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The first image of each block, ascending from 0.
    pub starts: Vec<u32>,
    /// The first block of each strand, ascending from 0.
    pub strands: Vec<u32>,
    /// The number of images.
    pub len: u32,
    /// For each block, how many are read from the one before it in its strand up to it; empty if none lies between any
    /// two.
    pub reads: Vec<u32>,
}

impl Blocks {
    pub fn images(&self, block: usize) -> Range<u32> {
        self.starts[block]..self.starts.get(block + 1).copied().unwrap_or(self.len)
    }

    /// The block of an image.
    pub fn block_of(&self, image: u32) -> usize {
        self.starts.partition_point(|&start| start <= image) - 1
    }

    pub fn strand_of(&self, block: usize) -> usize {
        self.strands.partition_point(|&first| first as usize <= block) - 1
    }

    pub fn blocks_of(&self, strand: usize) -> Range<usize> {
        let end = self.strands.get(strand + 1).map_or(self.starts.len(), |&end| end as usize);
        self.strands[strand] as usize..end
    }

    fn reads(&self, block: usize) -> u32 {
        self.reads.get(block).copied().unwrap_or(1)
    }

    /// Restricts the blocks to the `chosen` images (ascending), numbered by their place in `chosen`; empty blocks are
    /// dropped.
    fn restrict(&self, chosen: &[u32]) -> Self {
        let mut restricted = Self { len: chosen.len() as u32, ..Self::default() };
        let mut last = None;
        for (place, &image) in chosen.iter().enumerate() {
            let block = self.block_of(image);
            if last == Some(block) {
                continue;
            }
            let strand = self.strand_of(block);
            let before = last.filter(|&last| self.strand_of(last) == strand);
            if before.is_none() {
                restricted.strands.push(restricted.starts.len() as u32);
            }
            restricted.starts.push(place as u32);
            let next = before.map_or(self.blocks_of(strand).start, |before| before + 1);
            restricted.reads.push((next..=block).map(|block| self.reads(block)).sum());
            last = Some(block);
        }
        restricted
    }

    fn order(&self, stream: &mut Stream) -> Vec<u32> {
        let mut waiting: Vec<u32> = (0..self.strands.len() as u32).collect();
        shuffle(&mut waiting, stream);
        let mut waiting = waiting.into_iter().map(|strand| self.blocks_of(strand as usize));
        let mut open: Vec<Range<usize>> = waiting.by_ref().take(OPEN).collect();
        let mut blocks = Vec::with_capacity(self.starts.len());
        while !open.is_empty() {
            let mut still_open = Vec::with_capacity(OPEN);
            for mut strand in open {
                blocks.extend(strand.next());
                match strand.is_empty() {
                    true => still_open.extend(waiting.next()),
                    false => still_open.push(strand),
                }
            }
            open = still_open;
        }
        let mut order = Vec::with_capacity(self.len as usize);
        let mut rest = &blocks[..];
        while !rest.is_empty() {
            let (window, after) = rest.split_at(self.window(rest));
            let start = order.len();
            window.iter().for_each(|&block| order.extend(self.images(block)));
            shuffle(&mut order[start..], stream);
            rest = after;
        }
        order
    }

    /// How many of `blocks` make a window. The blocks that are read on the way to them count as well: they take memory,
    /// and with more of them a block might be left behind, and its strand read from the beginning again.
    fn window(&self, blocks: &[usize]) -> usize {
        let mut read = 0;
        let fits = |&&block: &&usize| {
            read += (self.reads(block) as usize).min(WINDOW);
            read <= WINDOW
        };
        blocks.iter().take_while(fits).count().max(1)
    }
}

impl Locality {
    /// `len` images that can each be read by itself.
    pub fn free(len: usize) -> Self {
        Self { parts: vec![Part { len: len as u32, blocks: None }] }
    }

    pub(crate) fn blocks(blocks: Arc<Blocks>) -> Self {
        Self { parts: vec![Part { len: blocks.len, blocks: Some(blocks) }] }
    }

    /// One data set after another.
    pub(crate) fn chain(parts: impl IntoIterator<Item = Self>) -> Self {
        Self { parts: parts.into_iter().flat_map(|locality| locality.parts).collect() }
    }

    /// True if each image can be read by itself.
    pub fn is_free(&self) -> bool {
        self.parts.iter().all(|part| part.blocks.is_none())
    }

    /// The layout of the `chosen` images, numbered by their place in `chosen`.
    pub(crate) fn restrict(&self, chosen: &[u32]) -> Self {
        // Blocks mean nothing if the images are in no order.
        if self.is_free() || !chosen.is_sorted() {
            return Self::free(chosen.len());
        }
        let (mut parts, mut first, mut rest) = (Vec::new(), 0, chosen);
        for part in &self.parts {
            let (inside, after) = rest.split_at(rest.partition_point(|&image| image < first + part.len));
            let local: Vec<u32> = inside.iter().map(|image| image - first).collect();
            let blocks = part.blocks.as_ref().map(|blocks| Arc::new(blocks.restrict(&local)));
            parts.push(Part { len: local.len() as u32, blocks });
            (first, rest) = (first + part.len, after);
        }
        Self { parts }
    }

    /// The order of epoch `epoch` under `seed`.
    pub(crate) fn order(&self, seed: u64, epoch: u64) -> Vec<u32> {
        let stream = |part: u64| Stream::new(seed, epoch, ORDER, part);
        if self.is_free() {
            let mut order: Vec<u32> = (0..self.parts.iter().map(|part| part.len).sum()).collect();
            shuffle(&mut order, &mut stream(0));
            return order;
        }
        let mut first = 0;
        let mut orders = Vec::with_capacity(self.parts.len());
        for (number, part) in (0..).zip(&self.parts) {
            let mut order = match &part.blocks {
                Some(blocks) => blocks.order(&mut stream(number)),
                None => {
                    let mut order: Vec<u32> = (0..part.len).collect();
                    shuffle(&mut order, &mut stream(number));
                    order
                }
            };
            order.iter_mut().for_each(|image| *image += first);
            first += part.len;
            orders.push(order);
        }
        match <[Vec<u32>; 1]>::try_from(orders) {
            Ok([order]) => order,
            Err(orders) => mixed(&orders, &mut stream(MIX)),
        }
    }

    /// Draws `count` images to hold out, ascending: single images of all, or, where images are read in many blocks,
    /// of some blocks. Those are so many that the images are of many classes if they lie class by class, and that half
    /// of the images stay.
    pub(crate) fn draw(&self, count: usize, stream: &mut Stream) -> Vec<u32> {
        let blocks: usize = self.parts.iter().flat_map(|part| &part.blocks).map(|of| of.starts.len()).sum();
        let mut drawn: Vec<u32> = match blocks {
            0..=SPREAD => (0..self.parts.iter().map(|part| part.len).sum()).collect(),
            _ => self.of_some_blocks(2 * count, stream),
        };
        shuffle(&mut drawn, stream);
        drawn.truncate(count);
        drawn.sort_unstable();
        drawn
    }

    /// The images of at least [`SPREAD`] blocks, drawn at random, and at least `count` images if there are so many.
    fn of_some_blocks(&self, count: usize, stream: &mut Stream) -> Vec<u32> {
        // An image that can be read by itself is as likely as any other, and is no block.
        let mut all: Vec<(Range<u32>, bool)> = Vec::new();
        let mut first = 0;
        for part in &self.parts {
            match &part.blocks {
                Some(of) => all.extend((0..of.starts.len()).map(|block| {
                    let images = of.images(block);
                    (first + images.start..first + images.end, true)
                })),
                None => all.extend((first..first + part.len).map(|image| (image..image + 1, false))),
            }
            first += part.len;
        }
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        shuffle(&mut order, stream);
        let (mut images, mut blocks) = (Vec::new(), 0);
        for at in order {
            if blocks >= SPREAD && images.len() >= count {
                break;
            }
            let (range, is_block) = &all[at as usize];
            images.extend(range.clone());
            blocks += usize::from(*is_block);
        }
        images
    }
}

/// Merges several orders, keeping each: at every place, the probability of each is proportional to the images it has
/// left.
fn mixed(orders: &[Vec<u32>], stream: &mut Stream) -> Vec<u32> {
    let mut rests: Vec<std::slice::Iter<u32>> = orders.iter().map(|order| order.iter()).collect();
    let mut left: u32 = orders.iter().map(|order| order.len() as u32).sum();
    let mut all = Vec::with_capacity(left as usize);
    while left > 0 {
        let mut draw = stream.below(left);
        for rest in &mut rests {
            let here = rest.len() as u32;
            if draw < here {
                all.extend(rest.next());
                break;
            }
            draw -= here;
        }
        left -= 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutation::permutation;

    /// 40 strands of 5 blocks of 10 images.
    fn blocks() -> Blocks {
        Blocks {
            starts: (0..200).map(|block| block * 10).collect(),
            strands: (0..40).map(|strand| strand * 5).collect(),
            len: 2000,
            ..Blocks::default()
        }
    }

    fn assert_each_once(order: &[u32], len: u32) {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..len));
    }

    #[test]
    fn free_images_have_the_plain_order() {
        assert_eq!(Locality::free(100).order(3, 4), permutation(100, 3, 4));
        let two = Locality::chain([Locality::free(60), Locality::free(40)]);
        assert_eq!(two.order(3, 4), permutation(100, 3, 4));
    }

    #[test]
    fn blocks_come_in_windows_and_strands_in_order() {
        let (blocks, locality) = (blocks(), Locality::blocks(Arc::new(blocks())));
        let order = locality.order(1, 0);
        assert_each_once(&order, 2000);
        assert_ne!(order, locality.order(1, 1));
        assert_eq!(order, locality.order(1, 0));
        let mut seen: Vec<usize> = Vec::new();
        for window in order.chunks(160) {
            let mut here: Vec<usize> = window.iter().map(|&image| blocks.block_of(image)).collect();
            here.sort_unstable();
            here.dedup();
            assert!(here.len() <= WINDOW);
            // Earlier blocks of the same strand have been read, or are in this window.
            for &block in &here {
                let first = blocks.blocks_of(blocks.strand_of(block)).start;
                assert!((first..block).all(|before| seen.contains(&before) || here.contains(&before)));
            }
            seen.extend(here);
        }
    }

    #[test]
    fn four_strands_are_read_at_once() {
        let (blocks, locality) = (blocks(), Locality::blocks(Arc::new(blocks())));
        let order = locality.order(1, 0);
        let mut strands: Vec<usize> =
            order[..160].iter().map(|&image| blocks.strand_of(blocks.block_of(image))).collect();
        strands.sort_unstable();
        let sizes: Vec<usize> = strands.chunk_by(|a, b| a == b).map(<[usize]>::len).collect();
        assert_eq!(sizes, [40; 4]);
        // As `permutation`, it stays what it is: checkpoints hold a place in it.
        assert_eq!(order[..10], [477, 784, 1121, 461, 283, 279, 460, 483, 270, 472]);
    }

    #[test]
    fn parts_are_mixed_and_each_image_comes_once() {
        let whole = Locality::chain([Locality::free(500), Locality::blocks(Arc::new(blocks()))]);
        let order = whole.order(9, 2);
        assert_each_once(&order, 2500);
        let early = order[..1000].iter().filter(|&&image| image < 500).count();
        assert!((150..250).contains(&early), "{early} of 500 in the first two fifths");
    }

    #[test]
    fn a_subset_keeps_what_lies_together() {
        let whole = Locality::chain([Locality::free(10), Locality::blocks(Arc::new(blocks()))]);
        let chosen: Vec<u32> = (0..2010).filter(|image| image % 3 == 0 || *image < 30).collect();
        let subset = whole.restrict(&chosen);
        assert_each_once(&subset.order(1, 1), chosen.len() as u32);
        let part = subset.parts[1].blocks.as_ref().unwrap();
        assert_eq!(part.strands.len(), 40);
        assert!(whole.restrict(&[5, 3]).is_free());
    }

    #[test]
    fn images_are_held_out_of_all_classes() {
        // One block, as a small archive has, and a few: images that lie class by class, 5 classes of 40 images.
        for starts in [vec![0], vec![0, 70, 140]] {
            let whole = Locality::blocks(Arc::new(Blocks {
                starts,
                strands: vec![0],
                len: 200,
                ..Blocks::default()
            }));
            let drawn = whole.draw(40, &mut Stream::new(1, 2, 3, 4));
            assert!(drawn.len() == 40 && drawn.is_sorted());
            let of_class = |class| drawn.iter().filter(|&&image| image / 40 == class).count();
            assert!((0..5).all(|class| (3..15).contains(&of_class(class))), "{drawn:?}");
            assert_eq!(drawn, whole.draw(40, &mut Stream::new(1, 2, 3, 4)));
            assert_eq!(drawn, Locality::free(200).draw(40, &mut Stream::new(1, 2, 3, 4)));
        }
    }

    #[test]
    fn images_are_held_out_of_some_of_many_blocks() {
        let whole = Locality::chain([Locality::free(100), Locality::blocks(Arc::new(blocks()))]);
        for count in [35, 200, 1000, 2099] {
            let drawn = whole.draw(count, &mut Stream::new(1, 2, 3, 4));
            assert!(drawn.len() == count && drawn.is_sorted_by(|a, b| a < b) && drawn[count - 1] < 2100);
            let by_block: Vec<&[u32]> = drawn.chunk_by(|a, b| *b >= 100 && a / 10 == b / 10).collect();
            let most = by_block.iter().map(|images| images.len()).max();
            assert!(count > 200 || (by_block.len() >= 20 && most < Some(10)), "{by_block:?}");
            assert!(count > 35 || by_block.len() <= SPREAD + 5, "{by_block:?}");
        }
    }

    #[test]
    fn windows_count_what_is_read_on_the_way() {
        let long = Blocks { starts: (0..400).collect(), strands: vec![0], len: 400, ..Blocks::default() };
        let chosen: Vec<u32> = (0..400).filter(|block| block % 8 == 7).collect();
        let part = long.restrict(&chosen);
        assert_eq!(part.reads, [8; 50]);
        assert_eq!(part.restrict(&[1, 2, 49]).reads, [16, 8, 376]);
        let order = part.order(&mut Stream::new(1, 2, 3, 4));
        // Two are 16 blocks.
        assert!(order.iter().zip(0..).all(|(&block, place)| block / 2 == place / 2), "{order:?}");
        assert_ne!(order, Vec::from_iter(0..50));
    }
}
