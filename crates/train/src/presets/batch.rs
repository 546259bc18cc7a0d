//! `train.batch = "auto"`: a batch that suits the images and the machine.

use crate::memory::fits_in;
use crate::pretrain::trained_on;
use crate::{Config, TrainError};

/// The fewest steps per epoch with a chosen batch, given enough images.
const STEPS: usize = 8;

/// Halves the batch of `config` until it suits `count` images, of which some are held out, and fits in half of
/// `memory`, the bytes of the device that trains, and lowers it to one that `workers` can share: as many images for
/// each, and at least 2. Also returns a sentence on why.
///
/// # Errors
/// Those of an invalid network.
pub fn choose(
    config: &Config,
    count: usize,
    memory: u64,
    workers: usize,
) -> Result<(usize, String), TrainError> {
    let (images, usual) = (trained_on(config, count), config.train.batch);
    let from_count = halved_to(usual, suiting(images));
    let fits = fits_in(config, memory / 2)?;
    let mut batch = from_count;
    while batch > 2 && !fits(batch)? {
        batch = halved_to(batch, batch - 1);
    }
    // Where images are too few for so many workers, that is what the run says.
    let shared = Some(shared_among(batch, workers)).filter(|&shared| shared <= images).unwrap_or(batch);
    let limit = if batch == usual {
        "as usual for this recipe".to_owned()
    } else if batch < from_count {
        of_memory(memory)
    } else {
        of_count(images, batch, "images")
    };
    let instead = match shared == batch {
        true => String::new(),
        false => format!(", for {workers} workers to share, instead of {batch}"),
    };
    Ok((shared, format!("batch of {shared}{instead}: {limit}")))
}

/// The largest batch, not above `batch` if possible, that gives each of `workers` as many images, and at least 2.
fn shared_among(batch: usize, workers: usize) -> usize {
    if workers < 2 { batch } else { (batch / workers).max(2) * workers }
}

/// The largest batch that suits `count` training images: one with [`STEPS`] steps per epoch, or two if images are few.
pub(super) fn suiting(count: usize) -> usize {
    (count / STEPS).max(count.min(2 * STEPS) / 2)
}

/// The reason why a batch is not larger when memory limits it.
pub(super) fn of_memory(bytes: u64) -> String {
    format!("what half of {:.1} GiB of free memory holds", bytes as f64 / f64::from(1 << 30))
}

/// The reason why a batch is not larger when the number of images limits it.
pub(super) fn of_count(count: usize, batch: usize, images: &str) -> String {
    let steps = match (count + batch / 2) / batch {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    let images = if count == 1 { images.trim_end_matches('s') } else { images };
    format!("{count} {images} to train on, in about {steps} an epoch")
}

/// Halves `batch` until it is at most `most`, but not below 2.
fn halved_to(mut batch: usize, most: usize) -> usize {
    while batch > most.max(2) {
        batch = (batch / 2).max(2);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;

    const GIB: u64 = 1 << 30;

    fn config(preset: &str, sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::resolve(&Layers { preset: Some(preset), sets: &sets, ..Layers::default() }).unwrap()
    }

    #[test]
    fn the_recipes_batch_is_halved_until_an_epoch_has_steps() {
        let small = config("small", &[]);
        let of = |count| choose(&small, count, 64 * GIB, 1).unwrap();
        assert_eq!(of(50_000), (256, "batch of 256: as usual for this recipe".to_owned()));
        assert_eq!(of(240).1, "batch of 16: 216 images to train on, in about 14 steps an epoch");
        assert_eq!([0, 1, 3, 10, 100].map(|count| of(count).0), [2, 2, 2, 4, 8]);
        assert_eq!(choose(&config("cifar10", &[]), 50_000, 64 * GIB, 1).unwrap().0, 512);
        let odd = config("small", &["train.batch=100"]);
        assert_eq!(choose(&odd, 240, 64 * GIB, 1).unwrap().0, 25);
    }

    #[test]
    fn workers_can_share_it() {
        let small = config("small", &[]);
        let of = |count, workers| choose(&small, count, 64 * GIB, workers).unwrap();
        assert_eq!(of(50_000, 4), (256, "batch of 256: as usual for this recipe".to_owned()));
        let why = "batch of 255, for 3 workers to share, instead of 256: as usual for this recipe";
        assert_eq!(of(50_000, 3), (255, why.to_owned()));
        assert_eq!([1, 2, 3, 5, 9].map(|workers| of(240, workers).0), [16, 16, 15, 15, 18]);
        assert_eq!(of(3, 2).0, 2);
    }

    #[test]
    fn half_of_the_memory_holds_it() {
        let config = config("small", &["train.precision=f32"]);
        let of = |memory| choose(&config, 50_000, memory, 1).unwrap();
        let mut batches: Vec<usize> = [GIB, GIB / 2, GIB / 4, GIB / 8, 0].map(|memory| of(memory).0).to_vec();
        let (batch, why) = of(GIB / 4);
        assert!(
            (4..256).contains(&batch) && why.contains("what half of 0.2 GiB of free memory holds"),
            "{why}"
        );
        assert!(batches.is_sorted_by(|a, b| a >= b), "{batches:?}");
        assert_eq!(batches.pop(), Some(2));
    }
}
