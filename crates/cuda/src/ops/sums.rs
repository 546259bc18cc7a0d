//! Sums over rows of channels, in f64: first over pieces of the rows, then over the pieces.

use super::reductions::{narrow_sums, sum_pieces};
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len, fits};
use crate::{Element, ElementType, Module, Program, Result, Slice, SliceMut};

/// How rows of channels are divided among blocks: see `row_sums.cuh`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub lanes: u32,
    pub columns: u32,
    pub pieces: u32,
    pub rows_per_piece: i64,
}

impl Plan {
    pub fn new(kernel: &'static str, rows: usize, channels: usize, element: ElementType) -> Result<Plan> {
        let packs = element.packs(channels);
        let lanes = packs.next_power_of_two().min(32);
        let columns = packs.div_ceil(lanes);
        // Enough blocks to fill the largest GPUs several times (132 multiprocessors of 3 or 4 blocks), and enough rows
        // in each that writing its sums costs little. A piece's values are counted in 32 bits.
        let ranks = BLOCK as usize / lanes;
        // A thread may compute indices this far beyond the end, up to four reads of `ranks` rows each: added to a
        // piece they must still fit into 32 bits.
        fits(kernel, 4 * ranks * channels)?;
        let pieces = rows.div_ceil(16 * ranks).clamp(1, (3168 / columns).max(1));
        let pieces = pieces.max((rows * channels).div_ceil(1 << 30));
        let rows_per_piece = rows.div_ceil(pieces).max(1);
        Ok(Plan {
            lanes: lanes as u32,
            columns: columns as u32,
            pieces: rows.div_ceil(rows_per_piece).max(1) as u32,
            rows_per_piece: rows_per_piece as i64,
        })
    }
}

/// The sums over rows of each channel and of its squares: `sums` = [sum of x; C values, sum of x^2; C values].
pub fn channel_sums<E: Element>(
    gpu: &dyn Launcher,
    x: Slice<E>,
    channels: usize,
    sums: SliceMut<f64>,
) -> Result<()> {
    const NAME: &str = "channel_sums";
    expect(NAME, channels > 0 && x.len().is_multiple_of(channels), || {
        format!("{} values are not whole rows of {channels}", x.len())
    })?;
    expect_len(NAME, "sums", sums.len(), 2 * channels)?;
    let rows = x.len() / channels;
    let plan = Plan::new(NAME, rows, channels, E::TYPE)?;
    let partials = Scratch::<f64>::new(gpu, plan.pieces as usize * 2 * channels)?;
    let count = fits(NAME, channels)?;
    let arguments =
        arguments![x.address(), rows as i64, count, plan.lanes, plan.rows_per_piece, partials.address()];
    let launch = Launch {
        program: Program::typed(Module::ChannelSums, E::TYPE),
        kernel: NAME,
        grid: [plan.columns, plan.pieces, 1],
        block: BLOCK,
        arguments,
    };
    // SAFETY: x consists of rows of `channels` values, the plan's pieces cover them, and `partials` has room for each
    // piece.
    unsafe { gpu.launch(&launch)? };
    sum_pieces(gpu, partials.as_ref(), plan.pieces as usize, sums)
}

/// The sum of every column over rows of `sums.len()` values.
pub fn column_sums<E: Element>(gpu: &dyn Launcher, x: Slice<E>, sums: SliceMut<f32>) -> Result<()> {
    let columns = sums.len();
    let mut exact = Scratch::<f64>::new(gpu, 2 * columns)?;
    channel_sums(gpu, x, columns, exact.as_mut())?;
    narrow_sums(gpu, exact.as_ref(), sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts and grids fit into 32 bits for up to 2^36 values.
    #[test]
    fn pieces_fit_whatever_the_size() {
        for (log, channels) in
            [33, 36].into_iter().flat_map(|log| [1, 3, 63, 64, 2048, 65_535].map(|c| (log, c)))
        {
            let rows = (1_usize << log) / channels;
            for element in ElementType::ALL {
                let plan = Plan::new("sums", rows, channels, element).unwrap();
                let (pieces, each) = (plan.pieces as usize, plan.rows_per_piece as usize);
                assert!(pieces <= 65_535 && pieces * each >= rows && (pieces - 1) * each < rows, "{plan:?}");
                let beyond = 4 * (BLOCK / plan.lanes) as usize * channels;
                assert!(each * channels + beyond <= u32::MAX as usize, "{rows} x {channels}: {plan:?}");
            }
        }
        assert!(Plan::new("sums", 1, 1 << 29, ElementType::F32).is_err());
    }
}
