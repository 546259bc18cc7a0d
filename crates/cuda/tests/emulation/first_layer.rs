use half::{bf16, f16};
use simclr_cuda::ops::batch_norm::{self, BackwardSums};
use simclr_cuda::ops::first_layer;
use simclr_kernels::{Conv2dGeometry, conv2d as cpu};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Batch, height, width, channels out: images smaller than a strip, and several strips, the last of them cut.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 16],
    [3, 7, 5, 64],
    [3, 1, 1, 128],
    [3, 33, 17, 48],
    [1, 33, 17, 64],
    [1, 7, 5, 16],
    [1, 9, 40, 64],
    [1, 8, 32, 128],
];

fn geometry([batch, in_height, in_width, out_channels]: [usize; 4]) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels: 3,
        out_channels,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding: 1,
    }
}

/// The results of a first layer for given x, w, gamma, beta and dy.
struct Layer {
    /// [sum of y, sum of y^2].
    sums: Vec<f64>,
    output: Vec<f32>,
    /// [sum of g, sum of g (y - mean)].
    backward_sums: Vec<f64>,
    gradients: [Vec<f32>; 2],
    dw: Vec<f32>,
}

/// The inputs of a first layer.
struct Operands<E> {
    x: Vec<E>,
    w: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    dy: Vec<E>,
}

const EPSILON: f64 = 1e-5;

fn count(g: &Conv2dGeometry) -> f64 {
    (g.batch * g.out_height() * g.out_width()) as f64
}

impl<E: Stored> Operands<E> {
    fn of(g: &Conv2dGeometry) -> Operands<E> {
        // Some scales are negative.
        let gamma = noise(g.out_channels, 4).iter().map(|v| v + 0.4).collect();
        Operands {
            // Pixels lie in [0, 1].
            x: narrowed(&noise(g.input_len(), 1).iter().map(|v| v + 0.5).collect::<Vec<_>>()),
            w: noise(g.weight_len(), 2),
            gamma,
            beta: noise(g.out_channels, 5),
            dy: narrowed(&noise(g.output_len(), 3)),
        }
    }

    /// The results of the kernels; statistics are those of the batch unless `frozen`.
    fn computed(&self, gpu: &dyn simclr_cuda::Launcher, g: &Conv2dGeometry, frozen: bool) -> Layer {
        let k = g.out_channels;
        let (x, w, dy) = (Values::of(&self.x), Values::of(&self.w), Values::of(&self.dy));
        let (gamma, beta) = (Values::of(&self.gamma), Values::of(&self.beta));
        let mut sums = Values::<f64>::fresh(2 * k);
        first_layer::sums(gpu, g, x.read(), w.read(), sums.write()).unwrap();
        let mut coefficients = Values::<f32>::fresh(4 * k);
        let (of, beta) = (sums.read(), Some(beta.read()));
        let to = coefficients.write();
        batch_norm::coefficients(gpu, of, count(g), gamma.read(), beta, EPSILON, None, to).unwrap();
        let mut output = Values::<E>::fresh(g.output_len());
        let coefficients = coefficients.read();
        first_layer::forward(gpu, g, x.read(), w.read(), coefficients, output.write()).unwrap();

        let mut correlations = Values::<f64>::fresh(first_layer::correlations_len(g));
        let mut backward_sums = Values::<f64>::fresh(2 * k);
        let [mut dgamma, mut dbeta] = [0; 2].map(|_| Values::<f32>::fresh(k));
        let mut abc = Values::<f32>::fresh(3 * k);
        let to = BackwardSums {
            sums: backward_sums.write(),
            gradients: Some([dgamma.write(), dbeta.write()]),
            coefficients: Some(((!frozen).then(|| count(g)), abc.write())),
        };
        let (x, w, dy) = (x.read(), w.read(), dy.read());
        first_layer::backward_sums(gpu, g, x, w, coefficients, dy, correlations.write(), to).unwrap();
        let mut dw = Values::<f32>::fresh(g.weight_len());
        let (correlations, abc) = (correlations.read(), abc.read());
        first_layer::backward_weight::<E>(gpu, g, w, correlations, abc, dw.write()).unwrap();
        Layer {
            sums: sums.get(),
            output: widened(&output.get()),
            backward_sums: backward_sums.get(),
            gradients: [dgamma.get(), dbeta.get()],
            dw: dw.get(),
        }
    }

    /// The results of separate operators, in f64 between convolutions.
    fn composed(&self, g: &Conv2dGeometry, frozen: bool) -> Layer {
        let (portable, k, count) = (portable(), g.out_channels, count(g));
        let (x, w, dy) = (widened(&self.x), widened(&narrowed::<E>(&self.w)), widened(&self.dy));
        let mut y = vec![0f32; g.output_len()];
        cpu::conv2d_forward(&portable, g, &x, &w, &mut y, None);
        let (mut sums, mut backward_sums) = (vec![0.0; 2 * k], vec![0.0; 2 * k]);
        for (i, v) in y.iter().enumerate() {
            sums[i % k] += f64::from(*v);
            sums[k + i % k] += f64::from(*v).powi(2);
        }
        let mean: Vec<f64> = sums[..k].iter().map(|sum| sum / count).collect();
        let deviation: Vec<f64> =
            (0..k).map(|c| (sums[k + c] / count - mean[c].powi(2) + EPSILON).sqrt()).collect();
        let normal = |i: usize| (f64::from(y[i]) - mean[i % k]) / deviation[i % k];
        let output: Vec<f64> = (0..y.len())
            .map(|i| (f64::from(self.gamma[i % k]) * normal(i) + f64::from(self.beta[i % k])).max(0.0))
            .collect();
        let open: Vec<f64> =
            dy.iter().zip(&output).map(|(dy, y)| if *y > 0.0 { f64::from(*dy) } else { 0.0 }).collect();
        for (i, v) in open.iter().enumerate() {
            backward_sums[i % k] += v;
            backward_sums[k + i % k] += v * (f64::from(y[i]) - mean[i % k]);
        }
        let of_normal = |c: usize| backward_sums[k + c] / deviation[c];
        let back = |i: usize| {
            let c = i % k;
            let spread = if frozen { 0.0 } else { (backward_sums[c] + normal(i) * of_normal(c)) / count };
            (f64::from(self.gamma[c]) / deviation[c] * (open[i] - spread)) as f32
        };
        let dy: Vec<f32> = (0..y.len()).map(back).collect();
        let mut dw = vec![0f32; g.weight_len()];
        cpu::conv2d_backward_weight(&portable, g, &x, &dy, &mut dw);
        let gradients = [(0..k).map(|c| of_normal(c) as f32).collect(), {
            backward_sums[..k].iter().map(|sum| *sum as f32).collect()
        }];
        Layer { sums, output: output.iter().map(|v| *v as f32).collect(), backward_sums, gradients, dw }
    }
}

#[test]
fn first_layers_are_a_convolution_a_batch_norm_and_a_relu() {
    if compiler().is_some() {
        for g in SHAPES.map(geometry) {
            compared::<bf16>(&g);
            compared::<f16>(&g);
        }
        // Blocks for several strips.
        compared::<bf16>(&geometry([1100, 1, 1, 16]));
        compared::<bf16>(&geometry([600, 2, 1, 64]));
    }
}

fn compared<E: Stored>(g: &Conv2dGeometry) {
    let operands = Operands::<E>::of(g);
    for frozen in [false, true] {
        let got = in_every_order(|gpu| {
            let Layer { sums, output, backward_sums, gradients: [dgamma, dbeta], dw } =
                operands.computed(gpu, g, frozen);
            (sums, output, backward_sums, dgamma, dbeta, dw)
        });
        let (sums, output, backward_sums, dgamma, dbeta, dw) = got;
        let want = operands.composed(g, frozen);
        let (k, what) = (g.out_channels, |what| format!("{what} of {g:?}, {:?}, frozen: {frozen}", E::TYPE));
        for half in [0..k, k..2 * k] {
            assert_close(&what("sums"), &sums[half.clone()], &want.sums[half], 1e-5);
        }
        assert_close(&what("output"), &output, &want.output, tolerance::<E>());
        // Almost all equal the exact outputs, rounded; a few differ since terms are added in another order. A single
        // pixel is its own mean, so that only noise remains.
        let same = widened(&narrowed::<E>(&want.output)).iter().zip(&output).filter(|(a, b)| a == b).count();
        assert!(
            count(g) < 2.0 || same * 100 >= output.len() * 99,
            "{same} of {}, {}",
            output.len(),
            what("output")
        );
        if count(g) < 2.0 {
            continue;
        }
        assert_close(&what("sums of g"), &backward_sums[..k], &want.backward_sums[..k], 1e-5);
        assert_close(&what("products"), &backward_sums[k..], &want.backward_sums[k..], 1e-4);
        assert_close(&what("dgamma"), &dgamma, &want.gradients[0], 1e-4);
        assert_close(&what("dbeta"), &dbeta, &want.gradients[1], 1e-5);
        assert_close(&what("dw"), &dw, &want.dw, 1e-4);
    }
}

#[test]
fn what_is_beyond_an_image_does_not_matter() {
    if compiler().is_none() {
        return;
    }
    // A NaN reaches the 3 x 3 outputs around it and no others.
    let g = geometry([2, 5, 6, 16]);
    let mut x = noise(g.input_len(), 1);
    x[((5 + 2) * 6 + 3) * 3 + 1] = f32::NAN;
    let (x, w) = (narrowed::<bf16>(&x), noise(g.weight_len(), 2));
    // The positive part of y, and the negative part.
    let outputs = [1.0, -1.0].map(|scale| {
        let coefficients: Vec<f32> = (0..64).map(|i| if i < 16 { scale } else { 0.0 }).collect();
        in_every_order(|gpu| {
            let (x, w, mut y) = (Values::of(&x), Values::of(&w), Values::<bf16>::fresh(g.output_len()));
            let coefficients = Values::of(&coefficients);
            first_layer::forward(gpu, &g, x.read(), w.read(), coefficients.read(), y.write()).unwrap();
            y.get().into_iter().map(bf16::to_bits).collect::<Vec<_>>()
        })
    });
    for (i, bits) in outputs.concat().into_iter().enumerate() {
        let pixel = i % g.output_len() / 16;
        let around = (6..=8).contains(&(pixel / 6)) && (2..=4).contains(&(pixel % 6));
        assert_eq!(bf16::from_bits(bits).is_nan(), around, "pixel {pixel}");
    }
}

#[test]
fn other_convolutions_and_lengths_are_refused() {
    let g = geometry([2, 8, 8, 64]);
    let serves = first_layer::serves::<bf16>;
    assert!(serves(&g) && first_layer::serves::<f16>(&g) && !first_layer::serves::<f32>(&g));
    let others = [
        Conv2dGeometry { stride: 2, ..g },
        Conv2dGeometry { padding: 0, ..g },
        Conv2dGeometry { in_channels: 4, ..g },
        Conv2dGeometry { out_channels: 24, ..g },
        Conv2dGeometry { out_channels: 144, ..g },
        Conv2dGeometry { kernel_width: 5, ..g },
        Conv2dGeometry { batch: 0, ..g },
    ];
    assert!(others.iter().all(|g| !serves(g)));
    if compiler().is_none() {
        return;
    }
    in_every_order(|gpu| {
        let (x, w) = (Values::of(&[bf16::ONE; 384]), Values::of(&[1f32; 1728]));
        let mut to = Values::<f64>::fresh(128);
        let mut sums = |g: &Conv2dGeometry, x| {
            first_layer::sums(gpu, g, x, w.read(), to.write()).unwrap_err().to_string()
        };
        assert!(sums(&others[0], x.read()).contains("stride 1, padding 1"));
        let short = Values::of(&[bf16::ONE; 12]);
        assert_eq!(sums(&g, short.read()), "first_layer_sums: x has 12 values, 384 are needed");
    });
}
