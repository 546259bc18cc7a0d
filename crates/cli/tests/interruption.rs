//! A run that is stopped at any moment, however rudely, goes on to the same bits.

mod common;

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use common::{
    assert_same_run, checkpoints, finish, losses, pretrain, resume, simclr, small_data, start, wait_for,
};

/// Ten epochs of three steps, a checkpoint after every second step: most are in the middle of an epoch.
const SETS: [&str; 4] =
    ["train.epochs=10", "train.checkpoint_every=2", "train.knn_every=0", "train.health_every=0"];

#[test]
fn killed_and_resumed() {
    let (dir, data) = small_data();
    let reference = dir.path().join("reference");
    simclr(&pretrain(&data, &reference, &SETS)).expect(0, &[]);
    assert_eq!(losses(&reference).len(), 30);

    let run = dir.path().join("run");
    let mut kills = 0;
    // Right at the start, in the middle of an epoch, while saving perhaps, and near the end.
    for (steps, pause) in [(0, 40), (5, 3), (12, 0), (24, 7)] {
        let arguments =
            if run.join("config.toml").exists() { resume(&data, &run) } else { pretrain(&data, &run, &SETS) };
        let mut child = start(&arguments);
        if wait_for(&run, steps, &mut child) {
            sleep(Duration::from_millis(pause));
            kills += usize::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
        }
        finish(child);
    }
    if kills < 2 {
        eprintln!(
            "SKIPPED in part: the run was faster than who would kill it, which came in time {kills} of 4 times"
        );
    }
    let arguments =
        if run.join("config.toml").exists() { resume(&data, &run) } else { pretrain(&data, &run, &SETS) };
    simclr(&arguments).expect(0, &[]);
    assert_same_run(&run, &reference);
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let (dir, data) = small_data();
    let reference = dir.path().join("reference");
    let sets = ["train.epochs=40", "train.batch=8", "train.knn_every=0"];
    simclr(&pretrain(&data, &reference, &sets)).expect(0, &[]);

    // Where decoded images are kept changes nothing, and a run that is taken up again finds them.
    let run = dir.path().join("a run");
    let mut child = start(&pretrain(&data, &run, &[&sets[..], &["data.cache=disk"]].concat()));
    assert!(wait_for(&run, 2, &mut child), "{}", finish(child).err);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let reply = finish(child).expect(130, &["stopping", "go on with: simclr pretrain", "--resume"]);
    let newest = checkpoints(&run).pop().unwrap();
    assert!(reply.err.contains(&format!("saved to {}", newest.display())), "{}", reply.err);

    assert!(run.join("data.cache").metadata().unwrap().len() > 48 * 20 * 20 * 3);

    // The very command that it names.
    let line = reply.err.lines().find_map(|line| line.strip_prefix("go on with: simclr ")).unwrap();
    let script = format!("exec \"$PROGRAM\" {line}");
    common::shell(&script, &[]).expect(0, &["going on after step"]);
    assert_same_run(&run, &reference);
    assert!(!run.join("data.cache").exists());
    simclr(&resume(&data, &run)).expect(0, &["is finished"]);
}

#[test]
fn any_number_of_threads_and_workers() {
    let (dir, data) = small_data();
    let runs: Vec<_> = [1, 2, 4]
        .map(|threads| {
            let run = dir.path().join(format!("run{threads}"));
            let mut words = pretrain(&data, &run, &["train.epochs=7", &format!("data.workers={threads}")]);
            let at = words.iter().position(|word| word == "--threads").unwrap();
            words[at + 1] = threads.to_string();
            simclr(&words).expect(0, &[]);
            run
        })
        .into();
    assert_eq!(losses(&runs[0]).len(), 21);
    assert_same_run(&runs[1], &runs[0]);
    assert_same_run(&runs[2], &runs[0]);
}
