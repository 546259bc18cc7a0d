//! Several workers train as a single one would: the same steps, saved and resumed by any number of them.

mod common;
mod watching;

use std::path::Path;
use std::sync::Arc;
use std::thread::scope;

use common::{bits, broken, run_in};
use simclr_data::{DataError, Dataset, DecodeScratch, Decoded, Region, Subset, Synthetic};
use simclr_engine::{Device, ThreadGroup};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{Outcome, Team, Worker, assist, lead, plan};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};
use watching::Watch;

fn images(torn: &[usize]) -> Arc<dyn Dataset> {
    broken(Synthetic::new(181, 16, 0), torn.iter().copied())
}

/// Two epochs of slightly more than ten steps on 16 x 16 pixels.
fn config(sets: &[&str]) -> Config {
    common::usual(&["train.precision=f32", "optim.rate=0.01"], sets)
}

/// The outcome of worker 0, with what it saw.
type Led = (Result<Outcome, TrainError>, Watch);

/// Trains with one worker for each of `configs`, all on `images`.
fn train(
    folder: &Path,
    configs: &[Config],
    images: &Arc<dyn Dataset>,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> (Led, Vec<Result<bool, TrainError>>) {
    let run = run_in(folder, &configs[0], from).unwrap();
    let mut group = ThreadGroup::new(configs.len());
    let others = group.split_off(1);
    scope(|scope| {
        let others: Vec<_> = others
            .into_iter()
            .zip(&configs[1..])
            .map(|(worker, config)| {
                scope.spawn(move || {
                    let device = Device::cpu(1).unwrap();
                    assist(images, config, &Team::new(&worker, 1), &device, &mut Watch::default())
                })
            })
            .collect();
        let mut watch = Watch { stop_after, ..Watch::default() };
        let outcome = {
            let first = group.pop().unwrap();
            let team = Team::new(&first, 1);
            lead(images, &configs[0], &run, from, &team, &Device::cpu(1).unwrap(), &mut watch)
        };
        ((outcome, watch), others.into_iter().map(|other| other.join().unwrap()).collect())
    })
}

/// Trains a whole run with `workers` workers. Returns its last checkpoint and what worker 0 saw.
fn whole(workers: usize, config: &Config, images: &Arc<dyn Dataset>) -> (Checkpoint, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let ((outcome, watch), others) = train(folder.path(), &vec![config.clone(); workers], images, None, None);
    let outcome = outcome.unwrap();
    assert!(outcome.finished && others.into_iter().all(|other| other.unwrap()));
    (Checkpoint::read(&Disk, &outcome.checkpoint).unwrap(), watch)
}

/// The greatest distance between corresponding tensors, relative to their norm.
fn deviation(a: &Checkpoint, b: &Checkpoint) -> f64 {
    let one = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let away: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
        let length: f64 = b.iter().map(|&b| square(b)).sum();
        (away / length.max(1e-6)).sqrt()
    };
    let pairs = a.tensors.iter().zip(&b.tensors).map(|(a, b)| (&a.data, &b.data));
    pairs.map(one).fold(0.0, f64::max)
}

#[test]
fn two_and_four_workers_take_the_steps_of_one() {
    let (config, images) = (config(&[]), images(&[]));
    let (alone, seen) = whole(1, &config, &images);
    for workers in [2, 4] {
        let (together, watch) = whole(workers, &config, &images);
        let (meta, plan) = (&together.meta, watch.plan.unwrap());
        assert_eq!((meta.step, meta.epoch, meta.next, plan.workers), (21, 2, 6, workers));
        for (step, alone) in watch.steps.iter().zip(&seen.steps) {
            let off = (step.loss / alone.loss - 1.0).abs();
            assert!(off < 1e-3, "{workers} workers, step {}: {off:.1e}", step.step);
        }
        // Held-out images are measured the same, by worker 0 alone.
        assert_eq!(watch.epochs.len(), 2);
        assert!(watch.epochs.iter().all(|epoch| epoch.health.is_some() && epoch.knn_top1.is_some()));
        let off = deviation(&together, &alone);
        println!("{workers} workers after 21 steps: off by {off:.1e}");
        assert!(off < 2e-2, "{workers} workers: {off:.1e}");
        assert!(bits(&whole(workers, &config, &images).0) == bits(&together), "the same bits each time");
    }
}

/// Selective kernels normalise one vector per image, over the images of all workers.
#[test]
fn gates_are_normalised_over_all_workers() {
    let selective = ["encoder.name=resnet50", "encoder.selective_kernels=0.0625", "train.epochs=1"];
    let (config, images) = (config(&selective), images(&[]));
    let [(one, alone), (two, together)] = [1, 2].map(|workers| whole(workers, &config, &images));
    for (step, alone) in together.steps.iter().zip(&alone.steps) {
        let off = (step.loss / alone.loss - 1.0).abs();
        assert!(off < 1e-3, "step {}: {off:.1e}", step.step);
    }
    // The last gammas start at 0, so the gates hardly affect the loss yet; compare their running averages instead.
    let averages = |checkpoint: Checkpoint| {
        let own = checkpoint.tensors.into_iter().filter(|t| t.name.ends_with(".attn.bn.running_mean"));
        Checkpoint { tensors: own.collect(), ..Checkpoint::default() }
    };
    let (one, two) = (averages(one), averages(two));
    let off = deviation(&two, &one);
    println!("the gates' averages: off by {off:.1e}");
    assert!(one.tensors.len() > 10 && off < 2e-3, "{off:.1e}");
}

#[test]
fn a_run_goes_on_to_the_same_bits() {
    let (config, images) = (config(&["train.precision=bf16"]), images(&[]));
    let two = vec![config.clone(); 2];
    let (expected, _) = whole(2, &config, &images);
    let folder = tempfile::tempdir().unwrap();
    let mut from: Option<Checkpoint> = None;
    // Stop in the first epoch, at its end, in the second. Several workers stop a step later than a single one would.
    for stop_after in [Some(4), Some(10), Some(13), None] {
        let ((outcome, _), _) = train(folder.path(), &two, &images, from.as_ref(), stop_after);
        let outcome = outcome.unwrap();
        let saved = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
        assert_eq!(saved.meta.step, stop_after.map_or(21, |step| step + 1));
        from = Some(saved);
    }
    assert!(bits(&from.unwrap()) == bits(&expected));
}

#[test]
fn two_workers_begin_four_go_on_and_one_ends() {
    let (config, images) = (config(&[]), images(&[]));
    let (expected, _) = whole(2, &config, &images);
    let folder = tempfile::tempdir().unwrap();
    let mut from: Option<Checkpoint> = None;
    for (workers, stop_after) in [(2, Some(6)), (4, Some(14)), (1, None)] {
        let configs = vec![config.clone(); workers];
        let ((outcome, _), _) = train(folder.path(), &configs, &images, from.as_ref(), stop_after);
        from = Some(Checkpoint::read(&Disk, &outcome.unwrap().checkpoint).unwrap());
    }
    let last = from.unwrap();
    assert_eq!((last.meta.step, last.meta.epoch, last.meta.next), (21, 2, 6));
    let off = deviation(&last, &expected);
    println!("two, four and one worker: off by {off:.1e}");
    assert!(off < 2e-2, "{off:.1e}");
}

#[test]
fn blocks_are_kept_by_all_where_one_must() {
    let images = images(&[]);
    let (full, blocks) = (config(&["train.memory=full"]), config(&["train.memory=blocks"]));
    let (expected, _) = whole(2, &full, &images);
    let folder = tempfile::tempdir().unwrap();
    let ((outcome, watch), _) = train(folder.path(), &[full, blocks], &images, None, None);
    assert_eq!(watch.plan.unwrap().memory.memory, simclr_train::config::Memory::Blocks);
    assert!(bits(&Checkpoint::read(&Disk, &outcome.unwrap().checkpoint).unwrap()) == bits(&expected));
}

#[test]
fn epochs_end_for_all_whoever_meets_the_broken_images_and_these_are_listed_once() {
    let broken: Vec<usize> = (0..40).map(|i| i * 4 + 1).collect();
    let (config, images) = (config(&["data.holdout=0", "train.epochs=3"]), images(&broken));
    let folder = tempfile::tempdir().unwrap();
    let ((outcome, watch), others) = train(folder.path(), &vec![config.clone(); 2], &images, None, None);
    let outcome = outcome.unwrap();
    assert!(outcome.finished && others.into_iter().all(|other| other.unwrap()));
    assert!(watch.epochs.iter().map(|epoch| epoch.epoch).eq(1..=3));
    // Three epochs of 141 readable images make slightly more than 26 batches of 16.
    assert!((26..=27).contains(&outcome.step), "{}", outcome.step);
    let run = RunFolder::resume(folder.path()).unwrap().0;
    let mut listed: Vec<u32> = run.read_skipped().unwrap().iter().map(|skipped| skipped.index).collect();
    let count = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert!(listed.len() == count && count > 30 && listed.iter().all(|&i| broken.contains(&(i as usize))));
}

#[test]
fn all_end_an_epoch_that_is_dealt_anew_in_its_middle() {
    // With ten of 26 images broken, the position of one worker says little about those of two.
    let images = broken(Synthetic::new(26, 16, 0), (0..10).map(|i| i * 5 % 26));
    let sets = ["data.holdout=0", "train.batch=4", "train.epochs=5"];
    let every = ["train.checkpoint_every=1", "train.keep_checkpoints=100"];
    let config = config(&[&sets[..], &every].concat());
    let folder = tempfile::tempdir().unwrap();
    let ((outcome, _), _) = train(folder.path(), std::slice::from_ref(&config), &images, None, None);
    assert!(outcome.unwrap().finished);
    let saved = RunFolder::resume(folder.path()).unwrap().0.checkpoints(100).list().unwrap();
    assert!(saved.len() > 12);
    for (step, path) in saved {
        let from = Checkpoint::read(&Disk, &path).unwrap();
        let copy = tempfile::tempdir().unwrap();
        drop(RunFolder::create(copy.path(), &config).unwrap());
        for log in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if log.is_file() {
                std::fs::copy(&log, copy.path().join(log.file_name().unwrap())).unwrap();
            }
        }
        let ((outcome, watch), others) =
            train(copy.path(), &vec![config.clone(); 2], &images, Some(&from), None);
        let outcome = outcome.unwrap_or_else(|error| panic!("from step {step}: {error}"));
        assert!(outcome.finished && others.into_iter().all(|other| other.unwrap()), "from step {step}");
        let epochs = watch.epochs.iter().map(|epoch| epoch.epoch);
        assert!(epochs.eq(from.meta.epoch + 1..=5), "from step {step}");
    }
}

/// Images whose files have the given number of bytes each.
struct OfSize(Arc<dyn Dataset>, u64);

impl Dataset for OfSize {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.0.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.0.name(index)
    }

    fn stored_bytes(&self, _: usize) -> Option<u64> {
        Some(self.1)
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        part: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.0.read_part(index, part, scratch)
    }
}

#[test]
fn workers_that_do_not_fit_together_stop_and_say_why() {
    let [fewer, more]: [Arc<dyn Dataset>; 2] =
        [181, 190].map(|count| Arc::new(Synthetic::new(count, 16, 0)) as _);
    let others: Arc<dyn Dataset> = Arc::new(Subset::new(more.clone(), (9..190).collect()));
    let sized = |bytes| Arc::new(OfSize(fewer.clone(), bytes)) as Arc<dyn Dataset>;
    for (pair, wrong) in [
        ([&fewer, &more], "has 190 images, worker 0 181"),
        ([&fewer, &others], "has other images than worker 0, or in another order"),
        ([&sized(10), &sized(11)], "has images whose files have other sizes than those of worker 0"),
    ] {
        let config = config(&[]);
        let folder = tempfile::tempdir().unwrap();
        let mut group = ThreadGroup::new(2);
        let second = group.pop().unwrap();
        let run = RunFolder::create(folder.path(), &config).unwrap();
        let errors = scope(|scope| {
            let config = &config;
            let assisting = scope.spawn(move || {
                let device = Device::cpu(1).unwrap();
                assist(pair[1], config, &Team::new(&second, 1), &device, &mut Watch::default())
                    .unwrap_err()
                    .to_string()
            });
            let (team, device) = (Team::new(&group[0], 1), Device::cpu(1).unwrap());
            let led = lead(pair[0], config, &run, None, &team, &device, &mut Watch::default());
            [led.unwrap_err().to_string(), assisting.join().unwrap()]
        });
        let expected = format!("worker 1 {wrong}; give every worker the same data");
        assert!(errors.iter().all(|error| *error == expected), "{errors:?}");
    }
}

#[test]
fn a_batch_must_be_shared_evenly() {
    let (images, device) = (images(&[]), Device::cpu(1).unwrap());
    let planned = |of: usize, batch: &str| {
        plan(&images, &config(&[batch]), &device, Worker { rank: 0, world_size: of, local_size: of })
    };
    assert_eq!(planned(4, "train.batch=16").unwrap().workers, 4);
    for (of, batch, right) in
        [(3, "train.batch=16", "use 15 or 18"), (4, "train.batch=4", "use 8"), (5, "train.batch=6", "use 10")]
    {
        let error = planned(of, batch).unwrap_err().to_string();
        assert!(error.contains("`train.batch`") && error.contains(right), "{error}");
    }
    let (alone, four) = (planned(1, "train.batch=16").unwrap(), planned(4, "train.batch=16").unwrap());
    assert!(four.memory.needs.step < alone.memory.needs.step, "each has a quarter of the batch");
}
