//! Says what a path holds, and reads every image of it once: `cargo run --example recognise -- PATH`.

use std::path::Path;
use std::time::Instant;

use simclr_data::{DecodeScratch, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: recognise PATH")?;
    let start = Instant::now();
    let source = open(Path::new(&path))?;
    println!("{}, {source:?}, listed in {:?}", source.kind, start.elapsed());
    println!("classes: {}", source.train.classes().join(", "));
    for left_out in &source.left_out.files {
        println!("left out: {}: {}", left_out.name, left_out.reason);
    }
    let mut scratch = DecodeScratch::default();
    let (mut read, mut broken) = (0, 0);
    let start = Instant::now();
    for index in 0..source.train.len() {
        match source.train.read(index, &mut scratch) {
            Ok(_) => read += 1,
            Err(error) => {
                broken += 1;
                println!("broken: {error}");
            }
        }
    }
    println!("{read} images read, {broken} broken, in {:?}", start.elapsed());
    Ok(())
}
