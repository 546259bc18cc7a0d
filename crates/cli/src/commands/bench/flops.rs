//! Floating-point operations of a training step, counted from the shapes of the convolutions and dense layers.

use simclr_engine::Parameters;

/// Operations for one view: forward, and backward to inputs and weights. A multiplication and an addition are two; what is not a
/// product (BatchNorm, ReLU, the loss, the optimiser) is not counted, being below a hundredth.
pub fn per_view(parameters: &Parameters, image_size: usize) -> u64 {
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
        // The images need no gradient.
        let passes = if name == "conv1.weight" { 2 } else { 3 };
        total += 2 * passes * products;
    }
    total
}

/// The side of what the layers put out, followed through a ResNet in the order of its parameters.
struct Grid {
    side: usize,
    /// Of the block under way: its input's.
    block_input: usize,
    block: String,
}

impl Grid {
    fn new(side: usize) -> Grid {
        Grid { side, block_input: side, block: String::new() }
    }

    /// Output rows and columns of the convolution called `name`, whose kernel is `kernel` wide.
    fn outputs(&mut self, name: &str, kernel: usize) -> (usize, usize) {
        if name == "conv1.weight" {
            // The large stem: stride 2, then a pool of stride 2.
            let conv = if kernel == 7 { self.side.div_ceil(2) } else { self.side };
            self.side = if kernel == 7 { conv.div_ceil(2) } else { conv };
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
    use simclr_nn::{Depth, PoolPadding, ResNet, ResNetSpec, Stem};

    fn giga(depth: Depth, stem: Stem, side: usize) -> f64 {
        let mut parameters = Parameters::new();
        let spec = ResNetSpec {
            depth,
            width: 1.0,
            stem,
            projection_shortcuts: false,
            pool_padding: PoolPadding::All,
        };
        ResNet::new(&spec, &Device::cpu(1).unwrap(), 0, &mut parameters).unwrap();
        per_view(&parameters, side) as f64 / 1e9
    }

    /// Against the counts of the literature: 1.82 and 4.09 billion multiplications and additions forward at 224 pixels.
    #[test]
    fn counts_of_known_networks() {
        let resnet18 = giga(Depth::D18, Stem::ImageNet, 224);
        assert!((resnet18 / (6.0 * 1.814) - 1.0).abs() < 0.03, "{resnet18}");
        let resnet50 = giga(Depth::D50, Stem::ImageNet, 224);
        assert!((resnet50 / (6.0 * 4.087) - 1.0).abs() < 0.03, "{resnet50}");
        let small = giga(Depth::D18, Stem::Small, 32);
        assert!((small / 3.33 - 1.0).abs() < 0.01, "{small}");
    }
}
