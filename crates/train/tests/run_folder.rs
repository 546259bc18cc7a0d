//! Run folders: refused, locked, versioned, and created whole.

mod faulty;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use faulty::{Fault, Faulty, Loss};
use simclr_data::{Dataset, Skipped, Synthetic, temporary_of};
use simclr_engine::Device;
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::pretrain::pretrain;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Layers, TrainError};

fn config() -> Config {
    Config::resolve(&Layers { preset: Some("small"), ..Layers::default() }).unwrap()
}

fn create(path: &Path) -> Result<RunFolder, TrainError> {
    RunFolder::create(path, &config())
}

fn resume(path: &Path) -> Result<(RunFolder, Config), TrainError> {
    RunFolder::resume(path)
}

#[test]
fn a_run_is_made_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/run");
    assert!(!RunFolder::exists(&path));
    let run = create(&path).unwrap();
    assert!(RunFolder::exists(&path) && path.join("checkpoints").is_dir());
    let marker = fs::read_to_string(path.join("run.toml")).unwrap();
    assert!(marker.starts_with("format = 1\n") && marker.contains("\nstarted = "), "{marker}");
    assert!(marker.contains(&format!("program = \"{}\"\n", env!("CARGO_PKG_VERSION"))), "{marker}");
    run.checkpoints(2)
        .save(&Checkpoint { meta: Meta { step: 3, ..Meta::default() }, ..Checkpoint::default() })
        .unwrap();
    drop(run);
    let (run, saved) = resume(&path).unwrap();
    assert_eq!(saved, config());
    assert_eq!(run.checkpoints(2).latest_good().unwrap().unwrap().checkpoint.meta.step, 3);
}

#[test]
fn a_run_knows_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = create(folder.path()).unwrap();
    assert!(!run.origin().contains("data = "));
    run.record_data(&[Path::new("photos/"), Path::new("more.zip")]).unwrap();
    drop(run);
    let (mut run, _) = resume(folder.path()).unwrap();
    let origin = run.origin();
    assert!(origin.starts_with("data = [\"photos/\", \"more.zip\"]\nworking_folder = "), "{origin}");
    assert!(origin.contains("\nstarted = "), "{origin}");
    assert_eq!(run.data(), [Path::new("photos/"), Path::new("more.zip")]);
    // Where they are now.
    run.record_data(&[Path::new("/moved")]).unwrap();
    let (run, _) = RunFolder::open(folder.path()).unwrap();
    assert!(run.origin().starts_with("data = [\"/moved\"]\nstarted = "), "{}", run.origin());
}

#[test]
fn a_folder_that_holds_something_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    drop(create(&path).unwrap());
    let message = create(&path).unwrap_err().to_string();
    assert!(message.ends_with("already holds a run; give another folder, or continue this one"), "{message}");

    let other = folder.path().join("other");
    for name in ["photo.jpg", "config.toml"] {
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join(name), "mine").unwrap();
        assert!(matches!(create(&other), Err(TrainError::NotARun { .. })), "{name}");
        assert!(matches!(resume(&other), Err(TrainError::NoRun { .. })), "{name}");
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
        assert_eq!(fs::read(other.join(name)).unwrap(), b"mine");
        fs::remove_dir_all(&other).unwrap();
    }
    fs::create_dir(&other).unwrap();
    create(&other).unwrap();

    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(create(&file).unwrap_err().to_string().contains("file: "));
    assert!(resume(&folder.path().join("nowhere")).unwrap_err().to_string().contains("holds no run"));
    fs::remove_file(other.join("config.toml")).unwrap();
    assert!(resume(&other).unwrap_err().to_string().ends_with("there is no config.toml in it"));
}

#[test]
fn two_processes_cannot_train_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path()).unwrap();
    assert!(matches!(resume(folder.path()), Err(TrainError::RunLocked { .. })));
    RunFolder::open(folder.path()).unwrap();
    drop(run);
    let first = resume(folder.path()).unwrap();
    assert!(matches!(resume(folder.path()), Err(TrainError::RunLocked { .. })));
    drop(first);
    resume(folder.path()).unwrap();
}

#[test]
fn a_run_from_a_newer_version_and_a_damaged_marker_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(folder.path()).unwrap());
    let marker = folder.path().join("run.toml");
    fs::write(&marker, "format = 2\nprogram = \"9.1.0\"\nmore = [1]\n").unwrap();
    let message = resume(folder.path()).unwrap_err().to_string();
    assert!(message.contains("run.toml has format 2 and was written by simclr 9.1.0"), "{message}");
    assert!(matches!(create(folder.path()), Err(TrainError::RunExists { .. })));
    for text in
        ["", "format = 0", "format = -1", "format = \"1\"", "for\u{0}mat", "format = 99999999999999999999"]
    {
        fs::write(&marker, text).unwrap();
        let error = resume(folder.path()).unwrap_err();
        assert!(matches!(error, TrainError::Damaged { .. }), "{text}: {error}");
    }
    fs::write(&marker, vec![b' '; 2 << 20]).unwrap();
    assert!(resume(folder.path()).unwrap_err().to_string().contains("at most"));
}

#[test]
fn a_changed_configuration_is_checked_and_the_file_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path()).unwrap();
    let mut changed = config();
    changed.train.threads = simclr_train::config::Auto::Value(3);
    run.write_config(&changed).unwrap();
    drop(run);
    assert_eq!(resume(folder.path()).unwrap().1, changed);
    fs::write(folder.path().join("config.toml"), "[train]\nbatch = 0\n").unwrap();
    let message = resume(folder.path()).unwrap_err().to_string();
    assert!(message.contains("config.toml: `train.batch` is 0"), "{message}");
}

#[test]
fn a_run_is_removed_whatever_has_become_of_it_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let remove = || RunFolder::remove(&path);
    assert!(matches!(remove(), Err(TrainError::NoRun { .. })));
    for (file, text) in
        [("config.toml", "[train]\nbatch = 0\n"), ("run.toml", "format = 99"), ("run.toml", "")]
    {
        let run = create(&path).unwrap();
        assert!(matches!(remove(), Err(TrainError::RunLocked { .. })));
        run.write_evaluation("knn", &0.5).unwrap();
        for name in ["events.out.tfevents.1.simclr", "encoder.safetensors", "report.html.1-0.tmp"] {
            run.write(name, |out| out.write_all(b"?")).unwrap();
        }
        drop(run);
        fs::write(path.join(file), text).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let message = remove().unwrap_err().to_string();
        assert!(message.contains("holds notes.txt beside its run"), "{message}");
        assert!(path.join("evaluation/knn.json").exists() && path.join("notes.txt").exists());
        fs::remove_file(path.join("notes.txt")).unwrap();
        remove().unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}

/// Files of killed programs; on systems that do not report which programs have ended, all of them stay.
#[cfg(target_os = "linux")]
#[test]
fn what_was_left_unfinished_goes_when_a_run_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path()).unwrap();
    run.write_evaluation("knn", &0.5).unwrap();
    drop(run);
    let (gone, own) = (u32::MAX, std::process::id());
    let file = |name: &str, process: u32| {
        let name = temporary_of(&folder.path().join(name)).into_os_string().into_string().unwrap();
        let path = PathBuf::from(name.replace(&format!(".{own}-"), &format!(".{process}-")));
        fs::write(&path, "half").unwrap();
        path
    };
    // Of a process on another machine, whose number may be that of none here, or of an earlier version.
    let elsewhere = |name: &str, hours: u64| {
        let path = folder.path().join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        path
    };
    let left = [
        file("report.html", gone),
        file("evaluation/finetune-10.safetensors", gone),
        elsewhere("evaluation/linear.json.4294967295-0-00000007.tmp", 30),
        elsewhere("evaluation/linear.json.4294967295-0.tmp", 30),
    ];
    let kept = [
        file("notes.txt", gone),
        file("evaluation/knn.json", own),
        elsewhere("evaluation/linear.json.4294967295-1-00000007.tmp", 20),
        elsewhere("evaluation/linear.json.4294967295-1.tmp", 20),
        folder.path().join("evaluation/knn.json"),
    ];
    resume(folder.path()).unwrap();
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
}

#[test]
fn results_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path()).unwrap();
    run.write_evaluation("knn", &serde_json::json!({"top1": 0.5})).unwrap();
    assert_eq!(fs::read_to_string(run.evaluation("knn")).unwrap(), "{\n  \"top1\": 0.5\n}\n");
    assert!(run.read_skipped().unwrap().is_empty());
    let skipped =
        [3, 5].map(|index| Skipped { index, name: format!("{index}.jpg"), reason: "torn".to_owned() });
    run.write_skipped(&skipped).unwrap();
    let text = fs::read_to_string(run.skipped()).unwrap();
    assert!(text.starts_with("{\"index\":3,\"name\":\"3.jpg\",\"reason\":\"torn\"}\n"), "{text}");
    assert_eq!(run.read_skipped().unwrap(), skipped);
    fs::write(run.skipped(), &text[..text.len() - 9]).unwrap();
    assert_eq!(run.read_skipped().unwrap(), skipped[..1]);
    run.write("report.html", |out| out.write_all(b"<p>")).unwrap();
    assert_eq!(fs::read_to_string(run.report()).unwrap(), "<p>");
}

#[test]
fn logs_and_results_are_there_after_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (path, files) = (folder.path().join("run"), Faulty::default());
    let sets = [
        "data.image_size=8",
        "encoder.width=0.0625",
        "train.batch=8",
        "train.epochs=1",
        "optim.warmup_epochs=0",
    ];
    let sets = sets.map(str::to_owned);
    let config =
        Config::resolve(&Layers { preset: Some("small"), sets: &sets, ..Layers::default() }).unwrap();
    let run = RunFolder::create_on(&path, &config, Arc::new(files.clone())).unwrap();
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(16, 8, 0));
    pretrain(&images, &config, &run, None, &Device::cpu(1).unwrap(), &mut ()).unwrap();
    // Logs alone: what is written to the folder later brings their names to the disk as well.
    files.cut_power(Loss::DataAndNames);
    let lines = fs::read_to_string(run.metrics()).unwrap().lines().count();
    let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!((lines, names.filter(|name| name.starts_with("events.")).count()), (3, 1));

    run.write_evaluation("knn", &0.5).unwrap();
    run.write_result(&folder.path().join("other/results"), "knn", &0.5).unwrap();
    files.cut_power(Loss::DataAndNames);
    assert!(run.evaluation("knn").exists() && folder.path().join("other/results/knn.json").exists());
}

/// After any fault the folder is a whole run or one that can be created again.
fn check(path: &Path, made: bool, what: &str) {
    if made || RunFolder::exists(path) {
        assert_eq!(resume(path).unwrap_or_else(|e| panic!("{what}: {e}")).1, config());
    } else {
        create(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn making_a_run_survives_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let files = Faulty::default();
    RunFolder::create_on(&folder.path().join("run"), &config(), Arc::new(files.clone())).unwrap();
    for at in 0..files.operations() {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            let files = Faulty::new(at, Fault::Error(kind));
            let made = RunFolder::create_on(&path, &config(), Arc::new(files.clone())).is_ok();
            // Where it could not be looked at, it stays.
            let looked = files.operations() > at + 1;
            assert!(made || !looked || !path.exists(), "{kind} at {at}");
            check(&path, made, &format!("{kind} at {at}"));
        }
        for loss in [Loss::Nothing, Loss::Data, Loss::DataAndNames] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            let files = Faulty::new(at, Fault::Stop);
            let made = RunFolder::create_on(&path, &config(), Arc::new(files.clone())).is_ok();
            files.cut_power(loss);
            check(&path, made, &format!("{loss:?} at {at}"));
        }
    }
}

#[test]
fn a_log_keeps_whole_lines_through_a_full_disk() {
    use simclr_train::metrics_log::MetricsLog;
    for at in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let files = Faulty::new(at, Fault::Error(ErrorKind::StorageFull));
        let Ok(mut log) = MetricsLog::create(&files, &path) else {
            continue;
        };
        let written: Vec<_> =
            (0..6).filter(|step| log.append(&serde_json::json!({ "step": step })).is_ok()).collect();
        let text = fs::read_to_string(&path).unwrap();
        let expected: String = written.iter().map(|step| format!("{{\"step\":{step}}}\n")).collect();
        assert_eq!(text, expected, "fault at {at}");
    }
}

#[test]
fn a_run_that_has_come_to_nothing_takes_nothing_of_the_users_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (new, there) = (folder.path().join("new"), folder.path().join("there"));
    create(&new).unwrap().discard();
    assert!(!new.exists());
    fs::create_dir(&there).unwrap();
    create(&there).unwrap().discard();
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    let run = create(&new).unwrap();
    fs::write(new.join("notes.txt"), "mine").unwrap();
    run.discard();
    assert_eq!(fs::read_dir(&new).unwrap().count(), 1);
    assert_eq!(fs::read(new.join("notes.txt")).unwrap(), b"mine");
}
