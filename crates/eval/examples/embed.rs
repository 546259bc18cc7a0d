//! The features h of image files, by the encoder of a run:
//! `cargo run --release -p simclr-eval --example embed -- RUN IMAGE...`.

use std::path::PathBuf;

use simclr_augment::{Scratch, central_crop};
use simclr_data::{DecodeScratch, decode_file};
use simclr_engine::Device;
use simclr_eval::protocols::{TrainedEncoder, WhichCheckpoint};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let run = arguments.next().ok_or("usage: embed RUN IMAGE...")?;
    // On all cores; `Device::cuda(0, 0)` is the first GPU.
    let encoder = TrainedEncoder::load(&run, WhichCheckpoint::Newest, &Device::cpu(0)?)?;
    let (model, options) = (&encoder.model, encoder.config.data.decode());
    let side = model.image_size();

    let (mut decoding, mut cropping) = (DecodeScratch::default(), Scratch::default());
    let mut crop = vec![0; side * side * 3];
    for path in arguments {
        let image = decode_file(&path, &options, &mut decoding)?;
        central_crop(image, side as u32, &mut cropping, &mut crop)?;
        // A batch of crops, one after another, would give as many rows.
        let (h, _) = model.embed(&crop)?;
        println!("{}: {} values, the first are {:?}", path.display(), h.len(), &h[..4.min(h.len())]);
    }
    Ok(())
}
