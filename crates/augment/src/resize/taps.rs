//! The source pixels that contribute to each pixel of a view along one axis, and their weights.

/// Half-width of the unstretched filter.
const SUPPORT: f64 = 2.0;

/// The taps of every output of one axis.
#[derive(Debug, Clone, Default)]
pub(super) struct Taps {
    /// First source pixel of each output, and where its weights begin and end.
    spans: Vec<(u32, usize, usize)>,
    weights: Vec<f32>,
    most: usize,
}

impl Taps {
    /// Prepares the reduction or enlargement of `length` pixels to `size`; the weights of each output sum to
    /// `gain`.
    pub fn prepare(&mut self, length: u32, size: u32, gain: f32) {
        self.spans.clear();
        self.weights.clear();
        self.most = 0;
        let scale = f64::from(length) / f64::from(size);
        let stretch = scale.max(1.0);
        let shrink = 1.0 / stretch;
        let radius = SUPPORT * stretch;
        for out in 0..size {
            let center = (f64::from(out) + 0.5) * scale;
            // Truncation equals floor here and is cheap on every processor.
            let low = (center - radius).max(0.0) as u32;
            let end = center + radius;
            let high = (end as u32 + u32::from(end.fract() > 0.0)).min(length);
            let begin = self.weights.len();
            let nearest = ((f64::from(low) + 0.5 - center) * shrink) as f32;
            self.weights.extend((low..high).map(|x| cubic(nearest + (x - low) as f32 * shrink as f32)));
            let line = &self.weights[begin..];
            // Without the zeros at either end, a crop of the view's size has one tap per pixel and is copied.
            let zeros = line.iter().position(|&weight| weight != 0.0).unwrap_or(0);
            let end = line.iter().rposition(|&weight| weight != 0.0).map_or(line.len(), |last| last + 1);
            self.weights.truncate(begin + end);
            let line = &mut self.weights[begin + zeros..];
            let norm = gain / line.iter().sum::<f32>();
            line.iter_mut().for_each(|weight| *weight *= norm);
            self.most = self.most.max(line.len());
            self.spans.push((low + zeros as u32, begin + zeros, self.weights.len()));
        }
    }

    /// The largest number of taps of any output.
    pub fn most(&self) -> usize {
        self.most
    }

    /// First source pixel of output `out`, and the weights from there on.
    pub fn of(&self, out: usize) -> (usize, &[f32]) {
        let (first, begin, end) = self.spans[out];
        (first as usize, &self.weights[begin..end])
    }
}

/// Keys' cubic convolution kernel with a = -0.5.
fn cubic(x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    let near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = A * (((x - 5.0) * x + 8.0) * x - 4.0);
    if x < 1.0 {
        near
    } else if x < 2.0 {
        far
    } else {
        0.0
    }
}
