//! Times what commands do with a data set: opening it without an index, reading its files in the order of an epoch, and
//! surveying it: `cargo run --release -p simclr-data --example reading -- THREADS PATH...`.

use std::time::Instant;

use simclr_data::{DecodeScratch, HashExtent, Opener, permutation, survey};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    let threads = threads.ok_or("usage: reading THREADS PATH...")?;
    let paths: Vec<_> = arguments.map(Into::into).collect();
    let start = Instant::now();
    let images = Opener { threads, ..Opener::default() }.open(&paths)?.to_pretrain();
    println!("{} images, opened in {:?}", images.len(), start.elapsed());
    if let Ok(calls) = std::fs::read_to_string("/proc/self/io") {
        println!("read until then: {}", calls.lines().take(3).collect::<Vec<_>>().join(", "));
    }
    let start = Instant::now();
    let mut scratch = DecodeScratch::default();
    let hash = |image: u32| images.content_hash(image as usize, HashExtent::Whole, &mut scratch);
    let read = permutation(images.len(), 0, 0).into_iter().filter_map(hash).count();
    println!("the bytes of {read} read by one thread in {:?}", start.elapsed());
    let start = Instant::now();
    let found = survey(&*images, threads, false, &|_| {})?;
    let equal = found.superfluous();
    println!("{} decoded, {equal} of them equal to another, in {:?}", found.readable, start.elapsed());
    Ok(())
}
