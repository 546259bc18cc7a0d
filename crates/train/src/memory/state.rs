//! Whether memory holds the network at all.

use simclr_engine::Device;

use super::available;
use crate::optim::Optimizer;
use crate::{Config, Model, TrainError};

/// Checks that `device` has room for the network's parameters and optimiser, before time is spent on making them.
///
/// # Errors
/// [`TrainError::NetworkDoesNotFit`] if the available memory is known and too little.
pub fn check_state(config: &Config, device: &Device) -> Result<(), TrainError> {
    check_within(config, left(device)?)
}

/// Free bytes in the memory of `device`, if the system reports them.
pub(super) fn left(device: &Device) -> Result<Option<u64>, TrainError> {
    Ok(match device.free_bytes()? {
        Some(free) => Some(free),
        None => available(),
    })
}

fn check_within(config: &Config, left: Option<u64>) -> Result<(), TrainError> {
    let dry = Device::dry()?;
    let model = Model::new(config, &dry)?;
    let optimizer = Optimizer::new(&config.optim, &model.parameters)?;
    let needed = dry.memory().live as u64;
    drop((model, optimizer));
    match left {
        Some(available) if needed > available => Err(TrainError::NetworkDoesNotFit { needed, available }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;

    #[test]
    fn a_network_without_room_is_refused_before_it_is_made() {
        let sets = ["encoder.name=resnet200", "encoder.width=16", "data.image_size=32"].map(str::to_owned);
        let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
        match check_within(&config, Some(24 << 30)).unwrap_err() {
            // Nearly 62.5 million parameters times 16^2 in f32, and their momentum.
            TrainError::NetworkDoesNotFit { needed, available } => {
                assert_eq!(available, 24 << 30);
                assert!((100_000_000_000..160_000_000_000).contains(&needed), "{needed}");
            }
            other => panic!("{other}"),
        }
        check_within(&config, None).unwrap();
        check_within(&config, Some(160_000_000_000)).unwrap();
    }
}
