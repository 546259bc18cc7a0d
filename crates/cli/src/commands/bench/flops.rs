//! Floating-point operations of training and of encoding, counted from the shapes of convolutions and dense layers.

use simclr_engine::Parameters;

/// Operations of a training step for one view: the forward pass, and the backward pass to inputs and weights. A
/// multiplication and an addition count as two. What is not a product (BatchNorm, ReLU, the loss, the optimiser) is
/// below a hundredth, and is not counted.
pub fn per_view(parameters: &Parameters, image_size: usize) -> u64 {
    // The images need no gradient.
    count(parameters, image_size, |name| if FIRST.contains(&name) { 2 } else { 3 })
}

/// Operations of the forward pass for one image, counted likewise.
pub fn per_image(parameters: &Parameters, image_size: usize) -> u64 {
    count(parameters, image_size, |_| 1)
}

/// `passes` tells how often a layer's products are computed.
fn count(parameters: &Parameters, image_size: usize, passes: impl Fn(&str) -> u64) -> u64 {
    let layers = parameters.iter().filter(|(name, _, _)| name.ends_with("weight"));
    let mut total = 0;
    let mut grid = Grid::new(image_size);
    for (name, _, value) in layers {
        let products = match value.shape() {
            // (out, kh, kw, in), applied at every output pixel.
            &[_, side, _, _] => {
                let (rows, columns) = grid.outputs(name, side);
                (value.len() * rows * columns) as u64
            }
            [_, _] => value.len() as u64,
            _ => continue,
        };
        total += 2 * passes(name) * products;
    }
    total
}

/// The convolution that reads the images, in a standard network and in a ResNet-D.
const FIRST: [&str; 2] = ["conv1.weight", "conv1.0.weight"];

/// The side of the layers' outputs, followed through a ResNet in the order of its parameters.
struct Grid {
    side: usize,
    /// The side of the input of the current block.
    block_input: usize,
    block: String,
}

impl Grid {
    fn new(side: usize) -> Grid {
        Grid { side, block_input: side, block: String::new() }
    }

    /// The output rows and columns of the convolution `name`, whose kernel is `kernel` wide.
    fn outputs(&mut self, name: &str, kernel: usize) -> (usize, usize) {
        if name.starts_with("conv1.") {
            // In the large stem the first convolution has stride 2, and so has the pool after the last.
            let conv = match (name, kernel) {
                ("conv1.weight", 7) | ("conv1.0.weight", _) => self.side.div_ceil(2),
                _ => self.side,
            };
            let pooled = matches!((name, kernel), ("conv1.weight", 7) | ("conv1.6.weight", _));
            self.side = if pooled { conv.div_ceil(2) } else { conv };
            return (conv, conv);
        }
        let block = name.split('.').take(2).collect::<Vec<_>>().join(".");
        if block != self.block {
            self.block_input = self.side;
            // The first block of a later stage halves the side in its first 3 x 3 convolution.
            if block.ends_with(".0") && block != "layer1.0" {
                self.side = self.side.div_ceil(2);
            }
            self.block = block;
        }
        let before_stride = kernel == 1 && name.ends_with(".conv1.weight");
        let side = if before_stride { self.block_input } else { self.side };
        (side, side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simclr_engine::Device;
    use simclr_nn::{Depth, ResNet, ResNetSpec, Stem, Variant};

    fn giga(depth: Depth, stem: Stem, variant: Variant, side: usize) -> f64 {
        let mut parameters = Parameters::new();
        let spec = ResNetSpec { variant, ..ResNetSpec::new(depth, 1.0, stem) };
        ResNet::new(&spec, &Device::cpu(1).unwrap(), 0, &mut parameters).unwrap();
        per_view(&parameters, side) as f64 / 1e9
    }

    /// Compares with the literature: 1.82 and 4.09 billion multiplications and additions in a forward pass at 224
    /// pixels, and 4.35 for a ResNet-50-D.
    #[test]
    fn counts_of_known_networks() {
        let standard = Variant::Standard;
        let resnet18 = giga(Depth::D18, Stem::ImageNet, standard, 224);
        assert!((resnet18 / (6.0 * 1.814) - 1.0).abs() < 0.03, "{resnet18}");
        let resnet50 = giga(Depth::D50, Stem::ImageNet, standard, 224);
        assert!((resnet50 / (6.0 * 4.087) - 1.0).abs() < 0.03, "{resnet50}");
        let resnet50d = giga(Depth::D50, Stem::ImageNet, Variant::D, 224);
        assert!((resnet50d / (6.0 * 4.353) - 1.0).abs() < 0.03, "{resnet50d}");
        // A block's 3 x 3 convolution makes two streams. The cost of the gate is negligible.
        let mut parameters = Parameters::new();
        let spec = ResNetSpec {
            variant: Variant::D,
            selective_kernels: Some(0.0625),
            ..ResNetSpec::new(Depth::D50, 1.0, Stem::ImageNet)
        };
        ResNet::new(&spec, &Device::dry().unwrap(), 0, &mut parameters).unwrap();
        let selective = per_view(&parameters, 224) as f64 / 1e9;
        // The 3 x 3 convolutions of a ResNet-50 are 1.85 of its 4.09 billion.
        assert!((selective / resnet50d - (4.353 + 1.85) / 4.353).abs() < 0.02, "{selective}");
        // A third of a step's, but that the images need no gradient.
        let mut parameters = Parameters::new();
        let spec = ResNetSpec::new(Depth::D50, 1.0, Stem::ImageNet);
        ResNet::new(&spec, &Device::dry().unwrap(), 0, &mut parameters).unwrap();
        let forward = per_image(&parameters, 224) as f64 / 1e9;
        assert!((forward / (2.0 * 4.087) - 1.0).abs() < 0.03, "{forward}");
        let small = giga(Depth::D18, Stem::Small, standard, 32);
        assert!((small / 3.33 - 1.0).abs() < 0.01, "{small}");
    }
}
