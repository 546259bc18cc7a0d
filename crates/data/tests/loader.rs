//! The loader: the same batches for any number of threads, every image once, broken ones skipped, resumable anywhere.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::loading;
use common::numbered::Numbered;
use simclr_augment::{ImageRef, Rotation, Scratch, Stream, ViewConfig, ViewOp};
use simclr_data::{
    Batch, Cached, DataError, Dataset, DecodeOptions, DecodeScratch, DiskBudget, EvalLoader, Loader,
    LoaderConfig, Position, Reading, Share, Subset, balanced_subset, permutation,
};

/// Images of 9 x 8 pixels, of which some cannot be read.
fn numbers(len: usize, broken: &[usize]) -> Arc<dyn Dataset> {
    Numbered::new(len, [9, 8], broken, 0)
}

fn config(batch: usize, threads: usize) -> LoaderConfig {
    loading(batch, 11, threads)
}

fn take(dataset: &Arc<dyn Dataset>, config: LoaderConfig, start: Position, batches: usize) -> Vec<Batch> {
    let mut loader = Loader::new(Arc::clone(dataset), config, start);
    let mut taken = Vec::new();
    for _ in 0..batches {
        let mut batch = loader.next_batch().unwrap();
        batch.waited = Default::default();
        taken.push(batch.clone());
        loader.recycle(batch);
    }
    taken
}

#[test]
fn threads_change_nothing() {
    let dataset = numbers(103, &[0, 5, 6, 50, 99]);
    let one = take(&dataset, config(8, 1), Position::default(), 40);
    for threads in [2, 4, 7] {
        assert!(one == take(&dataset, config(8, threads), Position::default(), 40), "{threads} threads");
    }
}

/// The batches of loader `rank` of two.
fn half(dataset: &Arc<dyn Dataset>, rank: usize, start: Position, batches: usize) -> Vec<Batch> {
    let config = LoaderConfig { share: Share::new(rank, 2).unwrap(), ..config(8, 2) };
    take(dataset, config, start, batches)
}

#[test]
fn two_loaders_together_make_the_batches_of_one() {
    // 70 images: an epoch ends within the fifth batch of 16, and again within the ninth.
    let dataset = numbers(70, &[]);
    let whole = take(&dataset, config(16, 2), Position::default(), 12);
    let halves = [0, 1].map(|rank| half(&dataset, rank, Position::default(), 12));
    let view = whole[0].views.len() / 32;
    for (step, whole) in whole.iter().enumerate() {
        for (rank, half) in halves.iter().map(|batches| &batches[step]).enumerate() {
            assert_eq!(half.indices, whole.indices[rank * 8..][..8]);
            for branch in [0, 1] {
                let views = &whole.views[(branch * 16 + rank * 8) * view..][..8 * view];
                assert!(half.views[branch * 8 * view..][..8 * view] == *views, "the same views");
            }
            assert_eq!(2 * half.position.0, whole.position.0);
        }
    }
    let after = halves[1][5].position;
    assert_eq!(half(&dataset, 1, after, 6), halves[1][6..], "and go on anywhere");
}

#[test]
fn each_branch_has_views_of_its_own_family() {
    let dataset = Numbered::new(30, [9, 8], &[], 0);
    let law = ViewConfig {
        a: Some(vec![]),
        b: Some(vec![ViewOp::Rotation(Rotation { prob: 1.0, degrees: [180.0, 180.0] })]),
        ..ViewConfig::default()
    };
    let views = law.families(8).unwrap().to_vec();
    let shared: Arc<dyn Dataset> = dataset.clone();
    let batch = take(&shared, LoaderConfig { views, ..config(10, 2) }, Position::default(), 1).remove(0);
    let (mut scratch, view) = (Scratch::default(), 3 * 8 * 8);
    let whole = law.families(8).unwrap()[0].clone();
    for (row, &image) in batch.indices.iter().enumerate() {
        let pixels = &dataset.pixels[image as usize];
        let recipe = whole.draw(9, 8, &mut Stream::new(0, 0, 0, 0));
        let mut first = vec![0; view];
        whole.apply(ImageRef { width: 9, height: 8, pixels }, &recipe, &mut scratch, &mut first);
        let turned: Vec<u8> = first.as_chunks::<3>().0.iter().rev().flatten().copied().collect();
        assert!(batch.views[row * view..][..view] == first, "branch 0 is only resized");
        assert!(batch.views[(10 + row) * view..][..view] == turned, "branch 1 is turned as well");
    }
}

#[test]
fn a_loader_with_broken_images_goes_on_to_its_next() {
    // Two images of the first loader's first batch are broken.
    let broken = permutation(70, 11, 0)[1..3].iter().map(|&image| image as usize).collect::<Vec<_>>();
    let dataset = numbers(70, &broken);
    let [first, second] = [0, 1].map(|rank| half(&dataset, rank, Position::default(), 4));
    assert_eq!((first[0].position, second[0].position), (Position(10), Position(8)));
    let mut seen: Vec<u32> = first.iter().chain(&second).flat_map(|batch| batch.indices.clone()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 64, "no image twice");
}

#[test]
fn no_image_is_twice_in_a_batch_that_passes_over_broken_ones() {
    let broken: Vec<usize> = (0..9).collect();
    let dataset = numbers(50, &broken);
    for seed in 0..20 {
        let all = take(&dataset, LoaderConfig { seed, ..config(32, 2) }, Position::default(), 30);
        for batch in &all {
            let distinct: BTreeSet<u32> = batch.indices.iter().copied().collect();
            assert_eq!(distinct.len(), 32, "seed {seed}: {:?}", batch.indices);
        }
        // Whichever batch is first, those after it are the same.
        let rest = take(&dataset, LoaderConfig { seed, ..config(32, 1) }, all[9].position, 20);
        assert!(rest.iter().zip(&all[10..]).all(|(a, b)| (&a.indices, &a.views) == (&b.indices, &b.views)));
    }
}

#[test]
fn epochs_follow_one_another_without_a_gap() {
    // 60 images in batches of 16: 15 batches are 4 epochs.
    for (images, broken) in [(60, &[][..]), (63, &[5, 40, 62][..])] {
        let dataset = numbers(images, broken);
        let batches = take(&dataset, config(16, 2), Position::default(), 15);
        let seen: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        for epoch in seen.chunks(60) {
            let distinct: BTreeSet<u32> = epoch.iter().copied().collect();
            assert_eq!(distinct.len(), 60, "an epoch sees each image that can be read once");
        }
        for batch in &batches {
            let distinct: BTreeSet<u32> = batch.indices.iter().copied().collect();
            assert_eq!(distinct.len(), 16, "no image is twice in a batch");
        }
        if broken.is_empty() {
            // Only the first places after the end of an epoch may differ from the shuffled order.
            assert_eq!(seen[..60], permutation(60, 11, 0));
            assert_eq!(seen[76..120], permutation(60, 11, 1)[16..]);
            let ends: Vec<u64> = batches.iter().map(|batch| batch.position.epochs(60)).collect();
            assert_eq!(ends, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4]);
            assert!(batches.iter().zip(1..).all(|(batch, number)| batch.position == Position(16 * number)));
        }
    }
}

#[test]
fn views_are_drawn_for_the_epoch_that_an_image_belongs_to() {
    // Two images of the third batch belong to the first epoch, two to the second.
    let dataset = numbers(10, &[]);
    let batch = &take(&dataset, config(4, 1), Position::default(), 3)[2];
    for (place, epoch) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        assert!(is_view(&dataset, batch, place, epoch), "place {place}");
        assert!(!is_view(&dataset, batch, place, 1 - epoch), "place {place}");
    }
}

/// Whether both views of the image at `place` in a batch of 4 are those drawn for `epoch`.
fn is_view(dataset: &Arc<dyn Dataset>, batch: &Batch, place: usize, epoch: u64) -> bool {
    let view = 8 * 8 * 3;
    assert_eq!(batch.views.len(), 2 * 4 * view);
    let family = &config(4, 1).views[0];
    batch.views.chunks_exact(4 * view).enumerate().all(|(branch, views)| {
        let (index, mut decode) = (batch.indices[place], DecodeScratch::default());
        let image = dataset.read(index as usize, &mut decode).unwrap();
        let mut stream = simclr_augment::Stream::new(11, epoch, u64::from(index), branch as u64);
        let recipe = family.draw(image.width, image.height, &mut stream);
        let mut expected = vec![0; view];
        family.apply(image, &recipe, &mut Default::default(), &mut expected);
        views[place * view..][..view] == expected
    })
}

#[test]
fn broken_images_are_replaced_by_the_next_and_listed_once() {
    let broken = [3, 10, 17, 29];
    let dataset = numbers(40, &broken);
    let mut loader = Loader::new(Arc::clone(&dataset), config(6, 3), Position::default());
    let good: Vec<u32> =
        permutation(40, 11, 0).into_iter().filter(|&i| !broken.contains(&(i as usize))).collect();
    for expected in good.chunks_exact(6) {
        let batch = loader.next_batch().unwrap();
        assert_eq!(batch.indices, expected);
        assert_eq!(batch.labels, expected.iter().map(|i| i % 3).collect::<Vec<_>>());
    }
    for _ in 0..12 {
        assert!(!loader.next_batch().unwrap().indices.iter().any(|&i| broken.contains(&(i as usize))));
    }
    drop(loader.next_batch());
    let skipped = loader.skipped();
    let indices: BTreeSet<usize> = skipped.iter().map(|s| s.index as usize).collect();
    assert_eq!((skipped.len(), indices), (4, broken.into_iter().collect()));
    assert_eq!((skipped[0].reason.as_str(), skipped[0].name.starts_with("image ")), ("torn", true));
}

#[test]
fn resumes_from_any_batch_to_the_same_batches() {
    let dataset = numbers(53, &[1, 2, 30, 44]);
    let whole = take(&dataset, config(7, 2), Position::default(), 21);
    for start in 0..14 {
        let rest = take(&dataset, config(7, 3), whole[start].position, 7);
        assert!(rest == whole[start + 1..start + 8], "after batch {start}");
    }
    let json = serde_json::to_string(&whole[3].position).unwrap();
    assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), whole[3].position);
}

#[test]
fn positives_lie_a_batch_apart() {
    let dataset = numbers(10, &[]);
    let batch = &take(&dataset, config(4, 1), Position::default(), 1)[0];
    assert!((0..4).all(|place| is_view(&dataset, batch, place, 0)));
}

#[test]
fn too_few_images_is_an_error_not_a_wait() {
    let error = |dataset: Arc<dyn Dataset>, config| {
        let mut loader = Loader::new(dataset, config, Position::default());
        let error = loader.next_batch().unwrap_err().to_string();
        assert!(matches!(loader.next_batch(), Err(DataError::Stopped(_))));
        error
    };
    let message = error(numbers(5, &[]), config(6, 2));
    assert!(message.contains("batch = 6 is more than the 5 readable images"), "{message}");
    let message = error(numbers(8, &[0, 1, 2]), config(6, 2));
    assert!(
        message.contains("batch = 6 is more than the 5 readable images of the data set (3 broken)"),
        "{message}"
    );
    assert!(error(numbers(0, &[]), config(1, 1)).contains("0 readable"));
    assert!(error(numbers(5, &[]), config(0, 1)).starts_with("batch: is 0"));
    assert!(error(numbers(5, &[]), config(1, 0)).starts_with("threads: is 0"));
    assert!(
        error(numbers(5, &[]), LoaderConfig { views: vec![], ..config(1, 1) }).starts_with("views: no view")
    );
    // Not enough images are left in this epoch: the batch is filled up from the next.
    let batches = take(&numbers(8, &[]), config(6, 2), Position(2 * 8 + 5), 1);
    assert_eq!(batches[0].position, Position(3 * 8 + 3));
}

#[test]
fn dropping_a_loader_ends_its_threads_wherever_they_are() {
    let dataset = numbers(500, &[]);
    for taken in [0, 1, 5] {
        let mut loader = Loader::new(Arc::clone(&dataset), config(16, 4), Position::default());
        for _ in 0..taken {
            loader.next_batch().unwrap();
        }
        drop(loader);
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}

#[test]
fn evaluation_reads_each_image_once_in_order() {
    let dataset = numbers(70, &[4, 69]);
    let reference = evaluate(&dataset, 1);
    assert_eq!(reference.len(), 5);
    assert_eq!(reference[4].indices.len(), 70 - 2 - 4 * 16);
    assert_eq!(reference[4].views.len(), 4 * 8 * 8 * 3);
    let indices: Vec<u32> = reference.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert!(indices.into_iter().eq((0..70).filter(|i| ![4, 69].contains(i))));
    assert!(evaluate(&dataset, 3) == reference);
}

#[test]
fn central_crops_of_no_size_are_refused() {
    for size in [0, 16_385, u32::MAX] {
        let mut loader = EvalLoader::new(numbers(4, &[]), size, 2, Reading { threads: 1, strict: false });
        let error = loader.next_batch().unwrap_err();
        assert!(matches!(error, DataError::Setting { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("size = {size}: must be a side")), "{error}");
    }
}

fn evaluate(dataset: &Arc<dyn Dataset>, threads: usize) -> Vec<Batch> {
    let mut loader = EvalLoader::new(Arc::clone(dataset), 8, 16, Reading { threads, strict: false });
    let mut batches = Vec::new();
    while let Some(mut batch) = loader.next_batch().unwrap() {
        batch.waited = Default::default();
        batches.push(batch.clone());
        loader.recycle(batch);
    }
    batches
}

#[test]
fn a_cache_changes_nothing_and_keeps_to_its_budget() {
    let dataset = numbers(50, &[7]);
    let plain = take(&dataset, config(8, 2), Position::default(), 18);
    let image = 9 * 8 * 3;
    for (budget, kept) in [(0, 0), (10 * image + 1, 10), (1 << 20, 49)] {
        let cached = Arc::new(Cached::in_memory(Arc::clone(&dataset), budget));
        let shared: Arc<dyn Dataset> = Arc::clone(&cached) as _;
        assert!(take(&shared, config(8, 2), Position::default(), 18) == plain);
        assert_eq!(cached.used_bytes(), kept * image);
        let dir = tempfile::tempdir().unwrap();
        let (file, decode, room) = (dir.path().join("cache"), DecodeOptions::default(), budget + kept * 24);
        let budget = DiskBudget { bytes: room, spare: 0 };
        let cached = Arc::new(Cached::on_disk(Arc::clone(&dataset), &decode, budget, &file).unwrap());
        let shared: Arc<dyn Dataset> = Arc::clone(&cached) as _;
        assert!(take(&shared, config(8, 1), Position::default(), 18) == plain);
        assert_eq!(cached.used_bytes(), kept * (image + 24));
    }
}

#[test]
fn a_holdout_is_drawn_once_and_for_all() {
    let dataset = numbers(30, &[]);
    let (rest, held_out) = Subset::split_off_holdout(Arc::clone(&dataset), 8, 3).unwrap();
    assert_eq!((rest.len(), held_out.len()), (22, 8));
    let all: BTreeSet<u32> = rest.indices().iter().chain(held_out.indices()).copied().collect();
    assert_eq!(all.len(), 30);
    let again = Subset::split_off_holdout(Arc::clone(&dataset), 8, 3).unwrap().1;
    let other = Subset::split_off_holdout(Arc::clone(&dataset), 8, 4).unwrap().1;
    assert!(again.indices() == held_out.indices() && other.indices() != held_out.indices());
    assert!(Subset::split_off_holdout(Arc::clone(&dataset), 30, 3).is_err());
    let first = held_out.indices()[0] as usize;
    assert_eq!((held_out.name(0), held_out.label(0)), (dataset.name(first), dataset.label(first)));
}

#[test]
fn balanced_subsets() {
    let dataset = numbers(30, &[]);
    let draw = |images, seed| balanced_subset(Arc::clone(&dataset), images, seed).unwrap();
    let per_class = |subset: &Subset| {
        [0, 1, 2].map(|label| (0..subset.len()).filter(|&i| subset.label(i) == Some(label)).count())
    };
    let sizes: Vec<Subset> = (3..=30).map(|images| draw(images, 5)).collect();
    for (subset, images) in sizes.iter().zip(3..) {
        let counts = per_class(subset);
        assert_eq!(counts.iter().sum::<usize>(), images);
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        assert!(subset.indices().is_sorted());
    }
    for pair in sizes.windows(2) {
        assert!(pair[0].indices().iter().all(|index| pair[1].indices().contains(index)));
    }
    assert_eq!(draw(12, 5).indices(), sizes[9].indices());
    assert_ne!(draw(12, 6).indices(), sizes[9].indices());
    // The class that gives one more is drawn too.
    let favoured = |seed| per_class(&draw(4, seed)).iter().position(|&images| images == 2);
    assert_eq!((0..30).map(favoured).collect::<BTreeSet<_>>(), [0, 1, 2].map(Some).into());

    // A class of two gives both, and the others the rest.
    let uneven: Vec<u32> = (0..30).filter(|index| index % 3 > 0 || *index < 6).collect();
    let uneven: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(&dataset), uneven));
    assert_eq!(per_class(&balanced_subset(uneven, 12, 5).unwrap()), [2, 5, 5]);
    for images in [0, 2, 31] {
        let error = balanced_subset(Arc::clone(&dataset), images, 5).err().unwrap().to_string();
        assert!(error.contains("give a number from 3 to 30"), "{error}");
    }
}
