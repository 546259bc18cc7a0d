//! Views of images: the same as those of `simclr-augment`, up to rounding.

use simclr_augment::{BlurPadding, Recipe, Step, ViewFamily, ViewOp};

use crate::launcher::{Launch, Launcher, Scratch, arguments, expect, expect_len, fits};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::Views);
const MOST_STEPS: usize = 16;
/// The greatest side of a view: the kernels' shared memory has room for a blur of that size.
const MOST_SIDE: usize = 16_384;
/// The most bytes of intermediate memory for views that are made together.
const ROOM: usize = 512 << 20;

/// All parameters of one view: `View` of `views.cu`, numbers without padding between them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::NoUninit)]
pub struct View {
    image: u64,
    width: u32,
    height: u32,
    left: u32,
    top: u32,
    crop_width: u32,
    crop_height: u32,
    flip: u32,
    steps: u32,
    before_blur: u32,
    blur: u32,
    sigma: f32,
    kinds: [u32; MOST_STEPS],
    values: [f32; MOST_STEPS],
    unused: u32,
}

impl View {
    /// The view that `recipe` describes, of an image that begins at byte `image` of all images.
    ///
    /// None where the kernels cannot make it, so that the CPU must: if there are operators other than brightness,
    /// contrast, saturation, hue, grey, solarise, invert, flip and one blur, a contrast after the blur, or more than
    /// sixteen changes of colour.
    pub fn new(recipe: &Recipe, image: usize) -> Option<View> {
        let (width, height) = recipe.image;
        let crop = recipe.crop;
        let mut view = View {
            image: image as u64,
            width,
            height,
            left: crop.left,
            top: crop.top,
            crop_width: crop.width,
            crop_height: crop.height,
            flip: 0,
            steps: 0,
            before_blur: 0,
            blur: 0,
            sigma: 0.0,
            kinds: [0; MOST_STEPS],
            values: [0.0; MOST_STEPS],
            unused: 0,
        };
        let mut flip = recipe.flip;
        for &step in recipe.steps.iter() {
            let (kind, value) = match step {
                Step::Brightness(factor) => (0, factor),
                Step::BrightnessShift(shift) => (1, shift),
                // The kernels compute the mean that contrast needs only before the blur.
                Step::Contrast(factor) if view.blur == 0 => (2, factor),
                Step::Saturation(factor) => (3, factor),
                Step::Hue(turn) => (4, 6.0 * turn.rem_euclid(1.0)),
                Step::Gray => (5, 0.0),
                Step::Solarize(threshold) => (6, threshold),
                Step::Invert => (6, 0.0),
                // A flip commutes with the other operators: they treat each pixel by itself or are symmetric.
                Step::Flip => {
                    flip = !flip;
                    continue;
                }
                Step::Blur { sigma, padding } if view.blur == 0 => {
                    view.blur = match padding {
                        BlurPadding::Zero => 1,
                        BlurPadding::Reflect => 2,
                    };
                    (view.sigma, view.before_blur) = (sigma, view.steps);
                    continue;
                }
                // Behind a blur.
                Step::Contrast(_) | Step::Blur { .. } => return None,
                Step::Cutout { .. }
                | Step::Rotate { .. }
                | Step::Noise { .. }
                | Step::Sobel
                | Step::AutoContrast
                | Step::Equalize
                | Step::Posterize { .. }
                | Step::Sharpness(_)
                | Step::Turn { .. }
                | Step::ShearX(_) => return None,
            };
            let place = view.steps as usize;
            if place == MOST_STEPS {
                return None;
            }
            (view.kinds[place], view.values[place]) = (kind, value);
            view.steps += 1;
        }
        if view.blur == 0 {
            view.before_blur = view.steps;
        }
        view.flip = u32::from(flip);
        Some(view)
    }

    /// The same view of an image that begins `bytes` bytes later.
    #[cfg(feature = "cuda")]
    pub(crate) fn moved(self, bytes: u64) -> View {
        View { image: self.image + bytes, ..self }
    }

    /// The most source pixels that an output pixel is made of along an axis.
    fn taps(&self, side: usize) -> usize {
        taps(self.crop_width.max(self.crop_height), side)
    }

    /// Whether the crop lies within the image, and the image within `bytes` bytes.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        let inside = |first: u32, length: u32, whole: u32| {
            length > 0 && u64::from(first) + u64::from(length) <= u64::from(whole)
        };
        let size = 3 * u64::from(self.width) * u64::from(self.height);
        inside(self.left, self.crop_width, self.width)
            && inside(self.top, self.crop_height, self.height)
            && self.image.checked_add(size).is_some_and(|end| end <= bytes as u64)
    }
}

/// Names an operator of a family that the kernels lack, if any: the family's views are then made on the CPU.
pub fn impossible(family: &ViewFamily) -> Option<&'static str> {
    let (mut steps, mut blurred) = (0, false);
    for op in family.ops() {
        match op {
            ViewOp::HorizontalFlip(_) => {}
            ViewOp::ColorJitter(law) if law.prob > 0.0 && law.strength > 0.0 => {
                if blurred {
                    return Some("colour jitter after a blur");
                }
                steps += 4;
            }
            ViewOp::ColorJitter(_) => {}
            ViewOp::Grayscale(_) | ViewOp::Solarize(_) => steps += 1,
            ViewOp::GaussianBlur(law) if law.prob == Some(0.0) => {}
            ViewOp::GaussianBlur(_) if blurred => return Some("a second blur"),
            ViewOp::GaussianBlur(_) => blurred = true,
            ViewOp::RandomResizedCrop(_) => return Some("a crop that is not the first"),
            ViewOp::Cutout(_) => return Some("cutout"),
            ViewOp::Rotation(_) => return Some("rotation"),
            ViewOp::GaussianNoise(_) => return Some("Gaussian noise"),
            ViewOp::Sobel(_) => return Some("Sobel"),
            ViewOp::AutoAugment(_) => return Some("AutoAugment"),
        }
    }
    (steps > MOST_STEPS).then_some("more than sixteen changes of colour")
}

/// The most source pixels that an output pixel is made of along an axis on which `length` pixels become `side`.
fn taps(length: u32, side: usize) -> usize {
    let stretch = (f64::from(length) / side.max(1) as f64).max(1.0);
    (length as usize).min((4.0 * stretch) as usize + 3)
}

/// How many of `views` views are made together, with outputs of up to `most` source pixels along an axis, and the
/// intermediate memory of each view in bytes.
fn at_once(views: usize, side: usize, most: usize) -> (usize, usize) {
    let each = size_of::<f32>() * (2 * 3 * side * side + 2 * side * most) + 24 * side;
    let parts = views.div_ceil((ROOM / each.max(1)).clamp(1, 65_535)).max(1);
    // Equal parts: a small last part would not fill the GPU.
    (views.div_ceil(parts).max(1), each)
}

/// Bytes of intermediate memory that [`make`] needs for `views` views of `side` x `side` pixels from images whose sides
/// are at most `longest` pixels.
pub fn room_to_make(views: usize, side: usize, longest: u32) -> usize {
    let (together, each) = at_once(views, side, taps(longest, side));
    together * each
}

/// Writes views of `side` x `side` pixels into `out`, (views, side, side, 3). `images` holds 8-bit RGB images, each
/// `width * height * 3` bytes from its view's `image` on.
pub fn make(
    gpu: &dyn Launcher,
    images: Slice<u8>,
    views: &[View],
    side: usize,
    out: SliceMut<u8>,
) -> Result<()> {
    if let Some(view) = views.iter().find(|view| !view.fits(images.len())) {
        return expect("views", false, || format!("{view:?} does not lie within {} bytes", images.len()));
    }
    let uploaded = gpu.upload(bytemuck::cast_slice(views))?;
    // SAFETY: the views fit, and the upload is a copy of them.
    unsafe { make_uploaded(gpu, images.address(), (views, uploaded.address()), side, out) }
}

/// As [`make`], with views that are on the GPU already.
///
/// # Safety
/// Each view's image must lie in readable memory, `view.image` bytes from address `images` on, and address
/// `uploaded` must hold a copy of the views.
pub(crate) unsafe fn make_uploaded(
    gpu: &dyn Launcher,
    images: u64,
    (views, uploaded): (&[View], u64),
    side: usize,
    out: SliceMut<u8>,
) -> Result<()> {
    const NAME: &str = "views";
    expect(NAME, (1..=MOST_SIDE).contains(&side), || {
        format!("a side of {side} pixels, not 1 to {MOST_SIDE}")
    })?;
    let len = 3 * side * side;
    expect_len(NAME, "out", out.len(), views.len() * len)?;
    let most = views.iter().map(|view| view.taps(side)).max().unwrap_or(1);
    let (together, _) = at_once(views.len(), side, most);
    for (number, part) in views.chunks(together).enumerate() {
        let first = number * together;
        let at = out.address() + (first * len) as u64;
        let uploaded = uploaded + (first * size_of::<View>()) as u64;
        // SAFETY: by the lengths checked above, `out` has room for the views of this part; the rest is the caller's
        // promise.
        unsafe { some(gpu, images, (part, uploaded), side, most, at)? };
    }
    Ok(())
}

/// Makes some of the views, at address `out`.
///
/// # Safety
/// As [`make_uploaded`], and there must be room for the views at `out`.
unsafe fn some(
    gpu: &dyn Launcher,
    images: u64,
    (views, uploaded): (&[View], u64),
    side: usize,
    most: usize,
    out: u64,
) -> Result<()> {
    const NAME: &str = "views_resize";
    let area = side * side;
    // A span is three numbers.
    let spans = Scratch::<u32>::new(gpu, views.len() * 2 * side * 3)?;
    let weights = Scratch::<f32>::new(gpu, views.len() * 2 * side * most)?;
    let planes = Scratch::<f32>::new(gpu, views.len() * 3 * area)?;
    let (width, taps, count) = (fits(NAME, side)?, fits(NAME, most)?, fits(NAME, views.len())?);
    let arguments =
        arguments![images, uploaded, width, spans.address(), weights.address(), taps, planes.address(), out];
    let block = if side > 64 { 1024 } else { 256 };
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [count, 1, 1], block, arguments };
    // SAFETY: crops lie within images (the caller's promise); intermediate memory has the sizes that the kernel
    // documents, and `most` is no less than the taps of any output.
    unsafe { gpu.launch(&launch)? };
    if views.iter().all(|view| view.blur == 0) {
        return Ok(());
    }
    let rows = Scratch::<f32>::new(gpu, views.len() * 3 * area)?;
    let grid = [fits(NAME, area.div_ceil(256))?, count, 1];
    let arguments = arguments![uploaded, width, planes.address(), rows.address()];
    let launch = Launch { program: PROGRAM, kernel: "views_blur_rows", grid, block: 256, arguments };
    // SAFETY: as above.
    unsafe { gpu.launch(&launch)? };
    let arguments = arguments![uploaded, width, rows.address(), out];
    let launch = Launch { program: PROGRAM, kernel: "views_blur_columns", grid, block: 256, arguments };
    // SAFETY: as above.
    unsafe { gpu.launch(&launch) }
}
