//! Compares the fast forms with the portable one, in f32 and in bf16, on every instruction set of this processor.

use super::testing::{geometry, values};
use super::*;
use crate::batch_norm::batch_norm_forward;
use crate::testing::cpu;
use crate::{Isa, Threads};
use half::bf16;

/// Results of all passes: y, its sums, dx, dw.
struct Passes {
    y: Vec<f32>,
    sums: Vec<f64>,
    dx: Vec<f32>,
    dw: Vec<f32>,
}

struct Operands<E> {
    x: Vec<E>,
    w: Vec<f32>,
    dy: Vec<E>,
}

fn narrow<E: Element>(values: Vec<f32>) -> Vec<E> {
    values.into_iter().map(E::narrow).collect()
}

fn widen<E: Element>(values: Vec<E>) -> Vec<f32> {
    values.into_iter().map(E::widen).collect()
}

/// Operands whose activations are exactly representable in E; weights need not be.
fn operands<E: Element>(g: &Conv2dGeometry) -> Operands<E> {
    Operands {
        x: narrow(values(g.input_len(), 1)),
        w: values(g.weight_len(), 2),
        dy: narrow(values(g.output_len(), 3)),
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Form {
    Direct,
    Winograd,
    Chosen,
}

fn fast<E: Element>(form: Form, cpu: &Cpu, g: &Conv2dGeometry, o: &Operands<E>) -> Passes {
    let dx = vec![E::narrow(f32::NAN); g.input_len()];
    fast_onto(form, cpu, g, o, dx, Write::Over)
}

fn fast_onto<E: Element>(
    form: Form,
    cpu: &Cpu,
    g: &Conv2dGeometry,
    o: &Operands<E>,
    mut dx: Vec<E>,
    write: Write,
) -> Passes {
    let mut y = vec![E::narrow(f32::NAN); g.output_len()];
    let mut sums = vec![f64::NAN; 2 * g.out_channels];
    let mut dw = vec![f32::NAN; g.weight_len()];
    pass(form, cpu, g, o, write, &mut y, &mut sums, &mut dx, &mut dw);
    Passes { y: widen(y), sums, dx: widen(dx), dw }
}

fn pass<E: Element>(
    form: Form,
    cpu: &Cpu,
    g: &Conv2dGeometry,
    o: &Operands<E>,
    write: Write,
    y: &mut [E],
    sums: &mut [f64],
    dx: &mut [E],
    dw: &mut [f32],
) {
    match form {
        Form::Direct => {
            direct::forward(cpu, g, &o.x, &o.w, y, Epilogue::Sum(sums));
            direct::backward_input(cpu, g, &o.dy, &o.w, dx, write);
            direct_weight::backward_weight(cpu, g, &o.x, &o.dy, dw);
        }
        Form::Winograd => {
            winograd::forward(cpu, g, &o.x, &o.w, y, Epilogue::Sum(sums));
            winograd::backward_input(cpu, g, &o.dy, &o.w, dx, write);
            winograd::backward_weight(cpu, g, &o.x, &o.dy, dw);
        }
        Form::Chosen => {
            conv2d_forward(cpu, g, &o.x, &o.w, y, Some(sums));
            conv2d_backward_input(cpu, g, &o.dy, &o.w, dx, write);
            conv2d_backward_weight(cpu, g, &o.x, &o.dy, dw);
        }
    }
}

fn specified<E: Element>(threads: &Threads, g: &Conv2dGeometry, o: &Operands<E>) -> Passes {
    let (x, dy) = (widen(o.x.clone()), widen(o.dy.clone()));
    let mut out = Passes {
        y: vec![0.0; g.output_len()],
        sums: vec![0.0; 2 * g.out_channels],
        dx: vec![0.0; g.input_len()],
        dw: vec![0.0; g.weight_len()],
    };
    portable::conv2d_forward(threads, g, &x, &o.w, &mut out.y);
    portable::conv2d_backward_input(threads, g, &dy, &o.w, &mut out.dx);
    portable::conv2d_backward_weight(threads, g, &x, &dy, &mut out.dw);
    portable::channel_sums(&out.y, &mut out.sums);
    out
}

/// The root mean square error relative to the root mean square of the expected values.
fn relative_rms<T: Copy + Into<f64>>(got: &[T], expected: &[T]) -> f64 {
    let mut error = 0.0;
    let mut scale = 0.0;
    for (&got, &expected) in got.iter().zip(expected) {
        let (got, expected): (f64, f64) = (got.into(), expected.into());
        error += (got - expected) * (got - expected);
        scale += expected * expected;
    }
    // All expected values are zero, as in padding only: then the error must be zero too.
    if scale == 0.0 { error } else { (error / scale).sqrt() }
}

/// Like [`relative_rms`], of sums of `terms` products of values in [-1, 1): few such sums may all cancel by chance, so
/// their errors are measured relative to what is usual.
fn relative_rms_of_sums(got: &[f32], expected: &[f32], terms: usize) -> f64 {
    let square: f64 = expected.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    let usual = expected.len() as f64 * terms as f64 / 9.0;
    let few = expected.len() < 64 && square > 0.0 && square < usual;
    relative_rms(got, expected) * if few { (square / usual).sqrt() } else { 1.0 }
}

/// The numbers of products in a value of y, dx and dw.
fn terms(g: &Conv2dGeometry) -> [usize; 3] {
    let taps = g.kernel_height * g.kernel_width;
    [taps * g.in_channels, taps * g.out_channels, g.output_len() / g.out_channels]
}

/// The relative root mean square error allowed for a pass: rounding, in bf16 that of weights and results.
fn tolerance<E: Element>() -> f64 {
    if E::PER_UNIT == 1 { 2e-6 } else { 5e-3 }
}

fn forms(g: &Conv2dGeometry) -> impl Iterator<Item = (Form, Isa)> {
    let forms = [Form::Direct, Form::Winograd, Form::Chosen];
    let winograd = winograd::can(g);
    forms
        .into_iter()
        .filter(move |&form| winograd || form == Form::Direct)
        .flat_map(|form| Isa::all().into_iter().map(move |isa| (form, isa)))
}

fn check_shape(g: &Conv2dGeometry) {
    check_shape_in::<f32>(g);
    check_shape_in::<bf16>(g);
}

fn check_shape_in<E: Element>(g: &Conv2dGeometry) {
    let threads = Threads::new(2).unwrap();
    let tolerance = tolerance::<E>();
    let o = operands::<E>(g);
    let expected = specified(&threads, g, &o);
    for (form, isa) in forms(g) {
        let cpu = Cpu { threads: threads.clone(), isa };
        let what = format!("{g:?}, {form:?} on {isa:?}, {}", std::any::type_name::<E>());
        let got = fast(form, &cpu, g, &o);
        let [y, dx, dw] = terms(g);
        let errors = [
            ("y", relative_rms_of_sums(&got.y, &expected.y, y)),
            ("dx", relative_rms_of_sums(&got.dx, &expected.dx, dx)),
            ("dw", relative_rms_of_sums(&got.dw, &expected.dw, dw)),
        ];
        for (name, error) in errors {
            assert!(error <= tolerance, "{name} of {what}: relative error {error:e}");
        }
        // They are sums of y as it was computed, whatever its errors (Winograd's before it is rounded). Sums may
        // cancel, so theirs are measured relative to their terms.
        let tolerance = if form == Form::Direct { self::tolerance::<f32>() } else { tolerance };
        let mut own = vec![0.0; 2 * g.out_channels];
        portable::channel_sums(&got.y, &mut own);
        let (sum, square) = got.sums.split_at(g.out_channels);
        let (want, want_square) = own.split_at(g.out_channels);
        let pixels = (g.output_len() / g.out_channels) as f64;
        let mean_square = want_square.iter().sum::<f64>() / want_square.len() as f64;
        for k in 0..g.out_channels {
            let error = (sum[k] - want[k]).abs();
            let scale = (mean_square.max(want_square[k]) * pixels).sqrt();
            assert!(error <= 6.0 * tolerance * scale, "sum {k} of {what}: {error:e} of {scale:e}");
        }
        let error = relative_rms(square, want_square);
        assert!(error <= 3.0 * tolerance, "squares of {what}: {error:e}");
        check_normalized(form, &cpu, g, &o, &expected.y);
    }
}

/// The output normalised in the same pass is that of a BatchNorm behind the convolution: in f32 to the bit.
fn check_normalized<E: Element>(
    form: Form,
    cpu: &Cpu,
    g: &Conv2dGeometry,
    o: &Operands<E>,
    convolved: &[f32],
) {
    let (scale, shift) = (values(g.out_channels, 4), values(g.out_channels, 5));
    let residual = narrow::<E>(values(g.output_len(), 6));
    for (residual, relu) in [(Some(&residual[..]), true), (None, false)] {
        let norm = Normalize { scale: &scale, shift: &shift, residual, relu };
        let mut y = vec![E::narrow(f32::NAN); g.output_len()];
        let epilogue = Epilogue::Normalize(norm);
        match form {
            Form::Direct => direct::forward(cpu, g, &o.x, &o.w, &mut y, epilogue),
            Form::Winograd => winograd::forward(cpu, g, &o.x, &o.w, &mut y, epilogue),
            Form::Chosen => conv2d_normalized(cpu, g, &o.x, &o.w, norm, &mut y),
        }
        let what = || format!("{g:?}, {form:?} on {:?}, residual and ReLU {relu}", cpu.isa);
        if E::PER_UNIT == 1 {
            let mut apart = vec![E::narrow(f32::NAN); g.output_len()];
            let x = fast(form, cpu, g, o).y;
            let x = narrow::<E>(x);
            batch_norm_forward(cpu, &x, &scale, &shift, residual, relu, &mut apart);
            assert_eq!(widen(y), widen(apart), "{}", what());
            continue;
        }
        let expected: Vec<f32> = convolved
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let added = residual.map_or(0.0, |residual| residual[i].widen());
                let y = x * scale[i % g.out_channels] + shift[i % g.out_channels] + added;
                if relu { y.max(0.0) } else { y }
            })
            .collect();
        // The convolution may have been rounded before, and what is added cancels some of it.
        let error = relative_rms(&widen(y), &expected);
        assert!(error <= 2.0 * tolerance::<E>(), "{}: relative error {error:e}", what());
    }
}

/// Shapes likely to break a kernel: one channel, channels around every vector and tile width, images smaller than a
/// tile, odd batches, strides that leave input pixels unread, kernels larger than the image, no padding and too much.
#[test]
fn awkward_shapes_match_the_portable_form() {
    for g in [
        geometry(1, 1, 1, 1, 1, (1, 1), 1, 0),
        geometry(1, 1, 1, 1, 2, (1, 1), 1, 0),
        geometry(3, 7, 7, 1, 1, (3, 3), 1, 1),
        geometry(5, 7, 7, 3, 17, (3, 3), 2, 1),
        geometry(2, 9, 5, 16, 33, (3, 3), 3, 0),
        geometry(7, 4, 4, 48, 64, (3, 3), 1, 1),
        geometry(3, 8, 8, 65, 130, (1, 1), 1, 0),
        geometry(3, 8, 7, 20, 40, (1, 1), 2, 0),
        geometry(2, 9, 9, 8, 12, (1, 1), 3, 1),
        geometry(1, 23, 19, 3, 64, (7, 7), 2, 3),
        geometry(2, 11, 11, 31, 15, (5, 5), 1, 2),
        geometry(2, 2, 2, 6, 80, (5, 5), 1, 4),
        geometry(1, 6, 6, 2, 3, (2, 3), 3, 1),
        geometry(1, 3, 40, 5, 7, (1, 5), 2, 2),
        geometry(2, 33, 34, 4, 6, (3, 3), 1, 1),
        geometry(1, 5, 5, 300, 70, (3, 3), 1, 1),
        geometry(3, 6, 6, 9, 200, (3, 3), 2, 1),
        geometry(1, 4, 4, 3, 2, (1, 1), 1, 3),
        geometry(40, 2, 2, 16, 16, (3, 3), 1, 1),
        geometry(1, 1, 2, 3, 1, (3, 3), 1, 3),
        geometry(2, 20, 20, 32, 64, (1, 1), 1, 0),
        geometry(1, 2, 1, 1, 1, (1, 1), 2, 1),
        geometry(3, 12, 12, 70, 40, (3, 3), 1, 1),
        geometry(2, 5, 5, 257, 20, (3, 3), 1, 1),
        geometry(9, 64, 64, 11, 24, (3, 3), 1, 1),
    ] {
        check_shape(&g);
    }
}

#[test]
fn networks_shapes_match_the_portable_form() {
    for g in [
        geometry(3, 32, 32, 3, 64, (3, 3), 1, 1),
        geometry(1, 32, 32, 64, 64, (3, 3), 1, 1),
        geometry(2, 16, 16, 64, 128, (3, 3), 2, 1),
        geometry(2, 16, 16, 64, 128, (1, 1), 2, 0),
        geometry(2, 8, 8, 160, 144, (3, 3), 1, 1),
        geometry(1, 4, 4, 256, 256, (3, 3), 1, 1),
        geometry(5, 32, 32, 16, 16, (3, 3), 1, 1),
        geometry(2, 56, 56, 3, 16, (7, 7), 2, 3),
    ] {
        check_shape(&g);
    }
}

/// Images so small that AMX's tiles hold a pixel of 16 of them: batches that are no multiple of that, rows that are
/// none of four pixels, channels beyond the last tile, taps that meet no pixel at all.
#[test]
fn small_images_match_the_portable_form() {
    for g in [
        geometry(1, 4, 4, 32, 16, (3, 3), 1, 1),
        geometry(17, 4, 4, 64, 48, (3, 3), 1, 1),
        geometry(300, 4, 4, 32, 32, (3, 3), 1, 1),
        geometry(33, 7, 7, 32, 70, (3, 3), 1, 1),
        geometry(59, 8, 8, 160, 33, (3, 3), 1, 1),
        geometry(29, 8, 8, 32, 64, (3, 3), 2, 1),
        geometry(18, 9, 5, 64, 32, (3, 3), 2, 1),
        geometry(31, 4, 4, 16, 64, (3, 2), 2, 1),
        geometry(40, 2, 2, 32, 32, (3, 3), 1, 1),
        geometry(3, 1, 1, 32, 32, (3, 3), 1, 1),
        geometry(5, 3, 6, 32, 20, (3, 3), 1, 2),
        geometry(2, 5, 4, 64, 64, (3, 3), 1, 0),
        geometry(6, 5, 5, 32, 64, (2, 3), 1, 2),
        geometry(4, 2, 3, 32, 32, (3, 1), 1, 5),
        geometry(130, 2, 2, 64, 64, (3, 3), 2, 1),
    ] {
        check_shape(&g);
    }
}

/// Shapes with the longest sums, in which rounding errors add up: channels for y and dx, pixels for dw.
#[test]
fn long_sums_stay_within_the_tolerance() {
    for g in [
        geometry(1, 8, 8, 2048, 16, (3, 3), 1, 1),
        geometry(1, 4, 4, 16, 2048, (3, 3), 1, 1),
        geometry(1, 4, 4, 2048, 16, (1, 1), 1, 0),
        geometry(24, 64, 64, 4, 8, (3, 3), 1, 1),
    ] {
        check_shape(&g);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn random_shapes_match_the_portable_form(
        n in 1usize..4, h in 1usize..11, w in 1usize..11, c in 1usize..40, k in 1usize..80,
        kernel in proptest::sample::select(vec![1usize, 3, 5, 7]), stride in 1usize..4, padding in 0usize..4,
    ) {
        let g = geometry(n, h, w, c, k, (kernel, kernel), stride, padding);
        if g.is_valid() {
            check_shape(&g);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for g in [
        geometry(37, 8, 8, 24, 40, (3, 3), 1, 1),
        geometry(5, 30, 30, 3, 16, (3, 3), 2, 1),
        geometry(9, 8, 8, 200, 150, (3, 3), 1, 1),
        geometry(19, 8, 8, 64, 64, (3, 3), 1, 1),
        geometry(7, 9, 9, 300, 20, (1, 1), 2, 0),
        geometry(150, 4, 4, 64, 64, (3, 3), 1, 1),
    ] {
        check_threads::<f32>(&g);
        check_threads::<bf16>(&g);
    }
}

fn check_threads<E: Element>(g: &Conv2dGeometry) {
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let o = operands::<E>(g);
    for (form, isa) in forms(g) {
        let run = |count| {
            let threads = Threads::new(count).unwrap();
            let out = fast(form, &Cpu { threads, isa }, g, &o);
            (bits(&out.y), out.sums, bits(&out.dx), bits(&out.dw))
        };
        let one = run(1);
        assert!(run(2) == one && run(4) == one, "{g:?}, {form:?} on {isa:?}");
    }
}

/// Added to previous values, the gradient of the input gives the sum of both, rounded once.
#[test]
fn the_gradient_to_the_input_can_be_added() {
    for g in [
        geometry(3, 8, 8, 24, 40, (3, 3), 1, 1),
        geometry(2, 9, 7, 17, 5, (3, 3), 2, 1),
        geometry(2, 8, 8, 20, 40, (1, 1), 2, 0),
        geometry(1, 5, 5, 30, 600, (3, 3), 1, 1),
        geometry(1, 6, 6, 9, 2100, (1, 1), 1, 0),
        geometry(1, 23, 19, 3, 64, (7, 7), 2, 3),
        geometry(3, 8, 8, 70, 40, (3, 3), 1, 1),
        geometry(2, 12, 12, 70, 64, (1, 1), 2, 0),
        geometry(1, 7, 7, 100, 600, (3, 3), 1, 1),
        geometry(21, 4, 4, 32, 64, (3, 3), 1, 1),
        geometry(3, 8, 8, 32, 64, (3, 3), 2, 1),
    ] {
        check_added::<f32>(&g);
        check_added::<bf16>(&g);
    }
}

fn check_added<E: Element>(g: &Conv2dGeometry) {
    let threads = Threads::new(2).unwrap();
    let o = operands::<E>(g);
    let before = narrow::<E>(values(g.input_len(), 9));
    let mut expected = specified(&threads, g, &o).dx;
    expected.iter_mut().zip(&before).for_each(|(dx, before)| *dx += before.widen());
    for (form, isa) in forms(g) {
        let cpu = Cpu { threads: threads.clone(), isa };
        let got = fast_onto(form, &cpu, g, &o, before.clone(), Write::Add);
        let error = relative_rms(&got.dx, &expected);
        assert!(error <= tolerance::<E>(), "{g:?}, {form:?} on {isa:?}: relative error {error:e}");
    }
}

/// Slices of bf16 need not be aligned as f32.
#[test]
fn bf16_at_odd_addresses() {
    let g = geometry(3, 6, 6, 32, 52, (1, 1), 1, 0);
    let cpu = cpu(Isa::detect(), 1);
    let o = operands::<bf16>(&g);
    let shifted = |v: &[bf16]| [&[bf16::ONE], v].concat();
    let (x, mut y) = (shifted(&o.x), shifted(&vec![bf16::ZERO; g.output_len()]));
    let (dy, mut dx) = (shifted(&o.dy), shifted(&vec![bf16::ZERO; g.input_len()]));
    conv2d_forward(&cpu, &g, &x[1..], &o.w, &mut y[1..], None);
    conv2d_backward_input(&cpu, &g, &dy[1..], &o.w, &mut dx[1..], Write::Over);
    let expected = fast(Form::Direct, &cpu, &g, &o);
    assert_eq!(widen(y[1..].to_vec()), expected.y);
    assert_eq!(widen(dx[1..].to_vec()), expected.dx);
}

#[test]
#[should_panic(expected = "input of")]
fn a_wrong_length_is_refused() {
    let g = geometry(1, 4, 4, 2, 2, (3, 3), 1, 1);
    let cpu = cpu(Isa::detect(), 1);
    conv2d_forward::<f32>(&cpu, &g, &[0.0; 31], &[0.0; 36], &mut [0.0; 32], None);
}

/// Geometries whose sizes wrap to the lengths of short slices must be refused before anything beyond those is accessed.
#[test]
fn geometries_that_wrap_are_refused() {
    // 2^64 inputs and 4 outputs; padding that makes more outputs, or a larger padded side, than 64 bits hold.
    for (g, x_len, y_len) in [
        (geometry(1, 1 << 32, 1 << 32, 1, 1, (1, 1), 1 << 31, 0), 0, 4),
        (geometry(1, 1, 1, 1, 1, (1, 1), 1, (1 << 31) - 1), 1, 1),
        (geometry(1, 1, 1, 1, 1, (1, 1), 1 << 31, 1 << 31), 1, 9),
        (geometry(1, 1, 1, 1, 1, (3, 3), 1, 1 << 63), 1, 1),
    ] {
        let w_len = g.kernel_height * g.kernel_width;
        for pass in 0..3 {
            let refused = std::panic::catch_unwind(|| {
                let cpu = cpu(Isa::detect(), 1);
                let (mut x, mut w, mut y) = (vec![0.0f32; x_len], vec![0.0; w_len], vec![0.0; y_len]);
                match pass {
                    0 => conv2d_forward(&cpu, &g, &x, &w, &mut y, None),
                    1 => conv2d_backward_input(&cpu, &g, &y, &w, &mut x, Write::Over),
                    _ => conv2d_backward_weight(&cpu, &g, &x, &y, &mut w),
                }
            });
            let said = *refused.unwrap_err().downcast::<String>().unwrap();
            assert!(said.contains("not a convolution"), "{said}");
        }
    }
}

/// The loop over remainders modulo the stride must end with the image's rows and columns.
#[test]
fn strides_far_beyond_the_image_take_no_time() {
    let g = geometry(1, 2, 3, 1, 1, (1, 1), 1 << 24, 0);
    let cpu = cpu(Isa::detect(), 1);
    let mut dx = [f32::NAN; 6];
    conv2d_backward_input(&cpu, &g, &[3.0], &[2.0], &mut dx, Write::Over);
    assert_eq!(dx, [6.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

/// So must what a pass copies.
#[test]
fn strides_far_beyond_the_image_take_no_memory() {
    let g = geometry(1, 2, 3, 1, 1, (2, 2), 1 << 24, 0);
    let cpu = cpu(Isa::detect(), 1);
    let (x, w) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(bf16::from_f32), [1.0, 0.0, 0.0, 2.0]);
    let (mut y, mut dw) = ([bf16::ZERO], [0.0; 4]);
    conv2d_forward(&cpu, &g, &x, &w, &mut y, None);
    conv2d_backward_weight(&cpu, &g, &x, &[bf16::ONE], &mut dw);
    assert_eq!((y[0].to_f32(), dw), (11.0, [1.0, 2.0, 4.0, 5.0]));
}

/// Many weights, and enough tiles for groups of the larger size and a smaller last one.
#[test]
fn the_largest_groups_of_tiles_are_those_of_the_direct_form() {
    let g = geometry(17, 40, 39, 260, 256, (3, 3), 1, 1);
    let o = operands::<f32>(&g);
    let cpu = cpu(Isa::detect(), 2);
    let run = |form: Form| {
        let (mut y, mut sums) = (vec![f32::NAN; g.output_len()], vec![f64::NAN; 2 * g.out_channels]);
        let forward = if form == Form::Direct { direct::forward } else { winograd::forward };
        forward(&cpu, &g, &o.x, &o.w, &mut y, Epilogue::Sum(&mut sums));
        (y, sums)
    };
    let (direct, winograd) = (run(Form::Direct), run(Form::Winograd));
    assert!(relative_rms(&winograd.0, &direct.0) < tolerance::<f32>());
    assert!(relative_rms(&winograd.1, &direct.1) < tolerance::<f32>());
}
