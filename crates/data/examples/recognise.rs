//! Prints what paths hold and how long it took to find out: `cargo run --release -p simclr-data --example recognise --
//! INDEX PATH...`.
//!
//! INDEX is a file that keeps what was found: a second call is faster.

use std::path::PathBuf;
use std::time::Instant;

use simclr_data::{Index, Opener};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let file = arguments.next().ok_or("usage: recognise INDEX PATH...")?;
    let start = Instant::now();
    let mut opener = Opener { index: Index::load(&file), ..Opener::default() };
    let source = opener.open(&arguments.collect::<Vec<_>>())?;
    println!("{}, {source:?}, found in {:?}", source.kind, start.elapsed());
    opener.index.save(&file)?;
    println!("index kept after {:?}", start.elapsed());
    println!("classes: {}", source.train.classes().join(", "));
    for left_out in &source.left_out.files {
        println!("left out: {}: {}", left_out.name, left_out.reason);
    }
    Ok(())
}
