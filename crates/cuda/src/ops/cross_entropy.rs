//! Softmax cross-entropy of rows of logits against class numbers.

use crate::launcher::{BLOCK, Launch, Launcher, arguments, exact_grid, expect_len, fits};
use crate::{Module, Program, Result, Slice, SliceMut};

/// `losses` gets `-log softmax(logits)[label]` of each row; `dlogits` becomes the gradient of their mean, (softmax
/// - onehot) / rows.
///
/// `logits` is (labels.len(), classes). A label that is no class gives NaN: labels on the device cannot be checked.
pub fn softmax_cross_entropy(
    gpu: &dyn Launcher,
    logits: Slice<f32>,
    labels: Slice<u32>,
    classes: usize,
    losses: SliceMut<f32>,
    dlogits: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "softmax_cross_entropy";
    let rows = labels.len();
    expect_len(NAME, "logits", logits.len(), rows * classes)?;
    expect_len(NAME, "dlogits", dlogits.len(), rows * classes)?;
    expect_len(NAME, "losses", losses.len(), rows)?;
    let (count, width) = (fits(NAME, rows)?, fits(NAME, classes)?);
    let arguments =
        arguments![logits.address(), labels.address(), losses.address(), dlogits.address(), count, width];
    let grid = exact_grid(NAME, rows * 32)?;
    let program = Program::of(Module::CrossEntropy);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&Launch { program, kernel: NAME, grid, block: BLOCK, arguments }) }
}
