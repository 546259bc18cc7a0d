//! Weights and images of a network from formulas, as `tools/golden/resnet18.py` makes them.

#[path = "../../../engine/tests/common/values.rs"]
mod uniform;

use simclr_engine::ParameterKind;
use simclr_train::Model;
use uniform::uniform;

/// Number of images in a step, with two views each.
pub const IMAGES: usize = 16;
/// Side of the images.
const SIZE: usize = 32;

/// Replaces the initial weights by the formula's values.
pub fn set_weights(model: &mut Model) {
    for id in model.parameters.ids() {
        let name = model.parameters.name(id).to_owned();
        let kind = model.parameters.kind(id);
        let shape = model.parameters.get(id).shape().to_vec();
        let mut values = model.parameters.get(id).to_vec().unwrap();
        let uniform = uniform(&name, values.len());
        let (centre, spread) = match kind {
            ParameterKind::Weight => (0.0, (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32),
            ParameterKind::Bias => (0.0, 0.1),
            ParameterKind::Norm if name.ends_with(".weight") => (1.0, 0.1),
            ParameterKind::Norm => (0.0, 0.1),
            ParameterKind::Buffer => continue,
        };
        values.iter_mut().zip(uniform).for_each(|(value, u)| *value = centre + spread * u);
        model.parameters.get_mut(id).write(&values).unwrap();
    }
}

/// `len` values of 0 to 255.
fn bytes(name: &str, len: usize) -> Vec<usize> {
    uniform(name, len).iter().map(|u| ((u + 1.0) * 128.0) as usize).collect()
}

/// (4 tint + 2 square + 2 fine) / 8, rounded down; there is one tint per image and one square value per 8 x 8 pixels.
pub fn views(step: usize) -> Vec<u8> {
    let tint = bytes(&format!("tint.{step}"), IMAGES * 3);
    let square = bytes(&format!("square.{step}"), IMAGES * 4 * 4 * 3);
    let fine = bytes(&format!("fine.{step}"), 2 * IMAGES * SIZE * SIZE * 3);
    let value = |(i, fine): (usize, &usize)| {
        let (channel, column, row) = (i % 3, i / 3 % SIZE, i / 3 / SIZE % SIZE);
        let image = i / (3 * SIZE * SIZE) % IMAGES;
        let square = square[((image * 4 + row / 8) * 4 + column / 8) * 3 + channel];
        ((4 * tint[image * 3 + channel] + 2 * square + 2 * fine) / 8) as u8
    };
    fine.iter().enumerate().map(value).collect()
}

/// The values of a parameter.
#[track_caller]
pub fn values(model: &Model, name: &str) -> Vec<f32> {
    let id = model.parameters.find(name).unwrap_or_else(|| panic!("no parameter {name}"));
    model.parameters.get(id).to_vec().unwrap()
}
