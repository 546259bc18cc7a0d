//! A run that is stopped at any moment, however abruptly, resumes to the same bits.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{
    assert_same_run, checkpoints, finish, losses, path, pretrain, resume, simclr, small_data, start, wait_for,
};

/// Ten epochs of three steps, with a checkpoint after every second step: most are in the middle of an epoch.
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
    // At the very start, in the middle of an epoch, perhaps while saving, and near the end.
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
        common::skipped(&format!(
            " in part: the run was faster than who would kill it, which came in time {kills} of 4 times"
        ));
    }
    let arguments =
        if run.join("config.toml").exists() { resume(&data, &run) } else { pretrain(&data, &run, &SETS) };
    simclr(&arguments).expect(0, &[]);
    assert_same_run(&run, &reference);
}

/// Sends signals in immediate succession.
fn send(signals: &[&str], child: &Child) {
    let kills: Vec<String> = signals.iter().map(|signal| format!("kill {signal} {}", child.id())).collect();
    common::shell(&kills.join(" && "), &[]).expect(0, &[]);
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let (dir, data) = small_data();
    let reference = dir.path().join("reference");
    let sets = ["train.epochs=40", "train.batch=8", "train.knn_every=0"];
    simclr(&pretrain(&data, &reference, &sets)).expect(0, &[]);

    // Where decoded images are cached changes nothing, and a resumed run finds them.
    let run = dir.path().join("a run");
    let mut child = start(&pretrain(&data, &run, &[&sets[..], &["data.cache=disk"]].concat()));
    assert!(wait_for(&run, 2, &mut child), "{}", finish(child).err);
    // A launcher may forward a signal that the program has received itself.
    send(&["-INT", "-TERM"], &child);
    let reply = finish(child).expect(130, &["stopping", "continue with: simclr pretrain", "--resume"]);
    let newest = checkpoints(&run).pop().unwrap();
    assert!(reply.err.contains(&format!("saved to {}", newest.display())), "{}", reply.err);

    assert!(run.join("data.cache").metadata().unwrap().len() > 48 * 20 * 20 * 3);

    // The exact command that the message names.
    let line = reply.err.lines().find_map(|line| line.strip_prefix("continue with: simclr ")).unwrap();
    let script = format!("exec \"$PROGRAM\" {line}");
    common::shell(&script, &[]).expect(0, &["resuming after step"]);
    assert_same_run(&run, &reference);
    assert!(!run.join("data.cache").exists());
    simclr(&resume(&data, &run)).expect(0, &["is finished"]);
}

/// An evaluation cannot go on, but it says that it stops, and leaves no half of a result.
#[test]
fn an_evaluation_that_is_stopped_says_so() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let endless = ["--epochs", "1000000", "--no-random"];
    for (command, more) in [("finetune", ["--labels", "100%"]), ("linear", ["--method", "sgd"])] {
        let words = [&[command, path(&run), "--train", path(&data)], &endless[..], &more].concat();
        let mut child = start(&words.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        // The plan is told once signals are watched for.
        while !line.contains("1,000,000 epochs") {
            line.clear();
            assert!(messages.read_line(&mut line).unwrap() > 0, "{command} ended");
        }
        send(&["-INT", "-TERM"], &child);
        let mut rest = String::new();
        messages.read_to_string(&mut rest).unwrap();
        finish(child).expect(130, &[]);
        assert!(rest.contains("stopping: nothing will be written\n"), "{command}: {rest}");
        assert!(!run.join("evaluation").exists(), "{command}");
    }
}

/// As with `nohup`, or `&` in a script; the workers that are started ignore them, too.
#[test]
fn signals_that_were_to_be_ignored_are() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    let mut words = pretrain(&data, &run, &["train.epochs=40", "train.batch=8", "train.knn_every=0"]);
    words.extend(["--workers".to_owned(), "2".to_owned()]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\"", common::PROGRAM])
        .args(&words)
        .env("XDG_CACHE_HOME", common::CACHE);
    let mut child = shell.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    assert!(wait_for(&run, 2, &mut child), "{}", finish(child).err);
    let group = format!("kill -s HUP -- -{0} && kill -s INT -- -{0}", child.id());
    common::shell(&group, &[]).expect(0, &[]);
    let reply = finish(child).expect(0, &["saved to"]);
    assert!(!reply.err.contains("stopping"), "{}", reply.err);
    assert_eq!(losses(&run).len(), 40 * 6);
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
