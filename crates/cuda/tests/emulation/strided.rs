use simclr_cuda::ops::strided;
use simclr_kernels::{Conv2dGeometry, Write};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Batch, height, width, channels, stride: pixels of whole packs and of single values, sizes that the stride does
/// and does not divide, and a stride larger than the image.
const SHAPES: [[usize; 5]; 7] = [
    [3, 8, 6, 16, 2],
    [2, 7, 9, 24, 2],
    [2, 7, 9, 5, 2],
    [1, 10, 4, 8, 3],
    [2, 5, 5, 1, 4],
    [2, 3, 2, 32, 7],
    [5, 1, 1, 8, 2],
];

fn geometry([batch, in_height, in_width, in_channels, stride]: [usize; 5]) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels,
        out_channels: 3,
        kernel_height: 1,
        kernel_width: 1,
        stride,
        padding: 0,
    }
}

/// The index in x of every value of the gathered pixels.
fn met(g: &Conv2dGeometry) -> Vec<usize> {
    let mut places = Vec::new();
    for image in 0..g.batch {
        for h in (0..g.in_height).step_by(g.stride) {
            for w in (0..g.in_width).step_by(g.stride) {
                let pixel = (image * g.in_height + h) * g.in_width + w;
                places.extend((0..g.in_channels).map(|c| pixel * g.in_channels + c));
            }
        }
    }
    places
}

#[test]
fn pixels_that_a_stride_meets_are_brought_together_and_put_back() {
    for_each_type!(pixels);
}

fn pixels<E: Stored>() {
    for g in SHAPES.map(geometry) {
        let places = met(&g);
        assert_eq!(places.len(), strided::together(&g).input_len(), "{g:?}");
        let (x, values) = (narrowed::<E>(&noise(g.input_len(), 1)), narrowed::<E>(&noise(places.len(), 2)));
        let (gathered, added, spread) = in_every_order(|gpu| {
            let (from, to_put) = (Values::of(&x), Values::of(&values));
            let mut gathered = Values::<E>::fresh(places.len());
            strided::gather(gpu, &g, from.read(), gathered.write()).unwrap();
            let (mut added, mut spread) = (Values::of(&x), Values::<E>::fresh(x.len()));
            strided::scatter(gpu, &g, to_put.read(), added.write(), Write::Add).unwrap();
            strided::scatter(gpu, &g, to_put.read(), spread.write(), Write::Over).unwrap();
            (gathered.get(), added.get(), spread.get())
        });
        let want: Vec<E> = places.iter().map(|place| x[*place]).collect();
        assert_eq!(gathered, want, "{g:?}");
        let (mut sum, mut over) = (x.clone(), vec![E::narrow(0.0); x.len()]);
        for (place, value) in places.iter().zip(&values) {
            sum[*place] = E::narrow(x[*place].widen() + value.widen());
            over[*place] = *value;
        }
        assert_eq!(added, sum, "{g:?}");
        assert_eq!(spread, over, "{g:?}");
    }
}

#[test]
fn other_convolutions_and_lengths_are_refused() {
    if compiler().is_none() {
        return;
    }
    let g = geometry([2, 4, 4, 8, 2]);
    for other in [
        Conv2dGeometry { stride: 1, ..g },
        Conv2dGeometry { padding: 1, ..g },
        Conv2dGeometry { kernel_width: 2, ..g },
    ] {
        assert!(!strided::serves(&other));
        in_every_order(|gpu| {
            let together = strided::together(&other).input_len();
            let (x, mut to) = (Values::<f32>::fresh(g.input_len()), Values::<f32>::fresh(together));
            assert!(strided::gather(gpu, &other, x.read(), to.write()).is_err(), "{other:?}");
        });
    }
    in_every_order(|gpu| {
        let (x, mut to) = (Values::<f32>::fresh(g.input_len()), Values::<f32>::fresh(65));
        let error = strided::gather(gpu, &g, x.read(), to.write()).unwrap_err();
        assert!(error.to_string().contains("the pixels has 65"), "{error}");
        let (pixels, mut x) = (Values::<f32>::fresh(64), Values::<f32>::fresh(g.input_len() - 1));
        assert!(strided::scatter(gpu, &g, pixels.read(), x.write(), Write::Add).is_err());
    });
}
