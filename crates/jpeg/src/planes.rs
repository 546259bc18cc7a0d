//! The samples of the components, two rows of MCUs at a time.

/// Margin on either side of a row, for the neighbours of the first and last samples and for vectors that read beyond.
pub(crate) const MARGIN: usize = 64;

/// The samples of one component: a ring of rows.
#[derive(Default)]
pub(crate) struct Plane {
    samples: Vec<u8>,
    pitch: usize,
    /// The number of rows kept, a power of two, minus one.
    mask: usize,
}

/// The planes of luma, Cb and Cr.
pub(crate) type Planes = [Plane; 3];

impl Plane {
    /// Makes room for `rows` (a power of two) rows of `width` samples, whose contents are arbitrary.
    pub fn prepare(&mut self, width: usize, rows: usize) {
        self.pitch = width + 2 * MARGIN;
        self.mask = rows - 1;
        let length = self.pitch * rows;
        self.samples.resize(self.samples.len().max(length), 0);
    }

    /// Row `y` from sample `x`, which may be -1, to the end of the margin after the last sample.
    #[inline]
    pub fn row(&self, y: usize, x: isize) -> &[u8] {
        let start = (y & self.mask) * self.pitch;
        &self.samples[start..start + self.pitch][MARGIN.wrapping_add_signed(x)..]
    }

    /// Writes a block whose first sample is at (x, y).
    #[inline]
    pub fn store(&mut self, x: usize, y: usize, block: &[u8; 64]) {
        let start = (y & self.mask) * self.pitch + MARGIN + x;
        let out = &mut self.samples[start..start + 7 * self.pitch + 8];
        for (y, samples) in block.as_chunks::<8>().0.iter().enumerate() {
            out[y * self.pitch..][..8].copy_from_slice(samples);
        }
    }

    /// Repeats the first and the last of `width` samples beyond the ends of rows `y..y + 8`.
    pub fn extend(&mut self, width: usize, y: usize) {
        for y in y..y + 8 {
            let row = (y & self.mask) * self.pitch + MARGIN;
            self.samples[row - 1] = self.samples[row];
            self.samples[row + width] = self.samples[row + width - 1];
        }
    }
}
