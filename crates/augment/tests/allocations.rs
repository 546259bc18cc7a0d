//! After warm-up, drawing and applying views allocates nothing. Alone in its file: the counter sees the whole
//! process.

mod counting;

use counting::allocations;
use simclr_augment::{ImageRef, Scratch, Stream, ViewConfig, ViewFamily, central_crop};

#[test]
fn nothing_is_allocated_after_warm_up() {
    let config = ViewConfig { blur_prob: Some(0.5), ..ViewConfig::default() };
    let pixels = vec![77; 120 * 90 * 3];
    let image = ImageRef::new(120, 90, &pixels).unwrap();
    let families = [32, 96].map(|size| ViewFamily::first_branch(&config, size).unwrap());
    let mut out = vec![0; families[1].view_len()];
    let mut scratch = Scratch::default();
    let mut pass = || {
        for index in 0..200 {
            for family in &families {
                let recipe = family.draw(120, 90, &mut Stream::new(1, 0, index, 0));
                let out = &mut out[..family.view_len()];
                family.apply(image, &recipe, &mut scratch, out);
                central_crop(image, family.size(), &mut scratch, out).unwrap();
            }
        }
    };
    // The threads of the test harness may allocate too, but at most once or twice: take the fewest of several passes.
    let fewest = (0..5).map(|_| allocations(&mut pass)).skip(1).min();
    assert_eq!(fewest, Some(0));
}
