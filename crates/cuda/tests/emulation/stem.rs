use simclr_cuda::ops::stem::{self, Packing};
use simclr_kernels::{Conv2dGeometry, conv2d as cpu};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Batch, height, width, channels in and out, height and width of the kernel, stride, padding.
const SHAPES: [[usize; 9]; 10] = [
    [2, 8, 8, 3, 5, 3, 3, 1, 1],
    [2, 16, 16, 3, 4, 7, 7, 2, 3],
    [1, 15, 17, 3, 4, 7, 7, 2, 3],
    [2, 9, 7, 1, 3, 3, 5, 2, 1],
    [1, 9, 7, 7, 3, 4, 2, 2, 0],
    [3, 6, 5, 2, 3, 2, 3, 2, 4],
    [2, 6, 6, 4, 33, 1, 1, 2, 0],
    [1, 1, 1, 5, 2, 1, 1, 1, 0],
    [1, 5, 4, 6, 2, 5, 4, 1, 2],
    [1, 3, 3, 3, 2, 9, 9, 2, 4],
];

fn geometry(shape: [usize; 9]) -> Conv2dGeometry {
    let [batch, in_height, in_width, in_channels, out_channels, kernel_height, kernel_width, stride, padding] =
        shape;
    Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels,
        out_channels,
        kernel_height,
        kernel_width,
        stride,
        padding,
    }
}

#[test]
fn packed_convolutions_are_those_of_the_definition() {
    for_each_type!(packed);
}

fn packed<E: Stored>() {
    let portable = portable();
    for g in SHAPES.map(geometry) {
        let packing = Packing::<E>::of(&g).unwrap();
        let packed = *packing.geometry();
        assert_eq!(packed.output_len(), g.output_len(), "{g:?}");
        let (x, w) = (narrowed::<E>(&noise(g.input_len(), 1)), noise(g.weight_len(), 2));
        let (packed_x, packed_w) = in_every_order(|gpu| {
            let (x, w) = (Values::of(&x), Values::of(&w));
            let mut packed_x = Values::<E>::fresh(packed.input_len());
            stem::pack_images(gpu, &packing, x.read(), packed_x.write()).unwrap();
            let mut packed_w = Values::<E>::fresh(packed.weight_len());
            stem::pack_weights(gpu, &packing, w.read(), packed_w.write()).unwrap();
            (packed_x.get(), packed_w.get())
        });
        let (x, w) = (widened(&x), widened(&narrowed::<E>(&w)));
        let (packed_x, packed_w) = (widened(&packed_x), widened(&packed_w));
        let [mut want, mut got] = [0, 1].map(|_| vec![0f32; g.output_len()]);
        cpu::conv2d_forward(&portable, &g, &x, &w, &mut want, None);
        cpu::conv2d_forward(&portable, &packed, &packed_x, &packed_w, &mut got, None);
        assert_close(&format!("{g:?}"), &got, &want, 1e-5);
        // The gradient is gathered from the places to which the weights were packed.
        let dy = noise(g.output_len(), 4);
        let (mut want, mut got) = (vec![0f32; g.weight_len()], vec![0f32; packed.weight_len()]);
        cpu::conv2d_backward_weight(&portable, &g, &x, &dy, &mut want);
        cpu::conv2d_backward_weight(&portable, &packed, &packed_x, &dy, &mut got);
        let gathered = in_every_order(|gpu| {
            let (packed, mut whole) = (Values::of(&got), Values::<f32>::fresh(g.weight_len()));
            stem::unpack_weights(gpu, &packing, packed.read(), whole.write()).unwrap();
            whole.get()
        });
        assert_close(&format!("dw of {g:?}"), &gathered, &want, 1e-5);
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    if compiler().is_none() {
        return;
    }
    let g = geometry([2, 8, 8, 3, 5, 3, 3, 3, 1]);
    assert!(!stem::pays::<half::bf16>(&g));
    let message = Packing::<f32>::of(&g).unwrap_err().to_string();
    assert!(message.contains("a convolution of stride 1 or 2 is needed"), "{message}");
    let g = Conv2dGeometry { stride: 2, ..g };
    assert!(stem::pays::<half::bf16>(&g) && !stem::pays::<f32>(&g));
    in_every_order(|gpu| {
        let packing = Packing::<f32>::of(&g).unwrap();
        let (x, mut packed) = (Values::of(&[1f32; 384]), Values::<f32>::fresh(12));
        let message = stem::pack_images(gpu, &packing, x.read(), packed.write()).unwrap_err().to_string();
        assert_eq!(message, "stem_pack_images: packed images has 12 values, 800 are needed");
    });
}
