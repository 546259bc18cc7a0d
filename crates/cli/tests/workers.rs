//! Several processes train one run: one starts the others, or they meet.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{
    assert_same_run, class_folders, finish, losses, path, pretrain, resume, simclr, small_data, start,
    wait_for,
};

fn with(mut words: Vec<String>, more: &[&str]) -> Vec<String> {
    words.extend(more.iter().map(|&word| word.to_owned()));
    words
}

/// An address of this machine at which nothing listens. Its port is below the range from which systems assign free
/// ports, so that no other program is given it before it is used.
fn free_address() -> String {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 10_000 + number % 20_000);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// The arguments of a worker other than the first.
fn worker<'w>(data: &'w Path, number: &'w str, of: &'w str, at: &'w str) -> Vec<String> {
    let words = ["pretrain", path(data), "--threads", "1", "--workers", of, "--worker", number, "--meet", at];
    words.map(str::to_owned).to_vec()
}

#[test]
fn two_processes_train_one_run_as_one_would() {
    let (dir, data) = small_data();
    let [alone, run] = ["alone", "run"].map(|name| dir.path().join(name));
    let sets = ["train.precision=f32", "data.holdout=4"];
    simclr(&pretrain(&data, &alone, &sets)).expect(0, &[]);
    let words = ["2 workers share each batch", "saved to"];
    let mut together = with(pretrain(&data, &run, &sets), &["--workers", "2"]);
    let threads = together.iter().position(|word| word == "--threads").unwrap();
    together.drain(threads..threads + 2);
    let reply = simclr(&together).expect(0, &words);
    assert_eq!(reply.err.matches("sub-folder per class").count(), 1, "one of them tells: {}", reply.err);
    let threads = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(
        threads.contains("threads = \"auto\""),
        "they share the cores of this machine, the run does not: {threads}"
    );
    let (alone, together) = (losses(&alone), losses(&run));
    assert_eq!(alone.len(), together.len());
    for ((_, alone), (_, together)) in alone.into_iter().zip(together) {
        let [alone, together] = [alone, together].map(f64::from_bits);
        assert!((alone / together - 1.0).abs() < 1e-3, "{alone} {together}");
    }
    simclr(&["knn", path(&run), "--train", path(&data)]).expect(0, &[]);
}

#[test]
fn a_killed_first_worker_ends_the_others_and_the_run_goes_on_to_the_same_bits() {
    let (dir, data) = small_data();
    let sets = ["train.epochs=6", "train.checkpoint_every=2", "train.knn_every=0", "train.health_every=0"];
    let reference = dir.path().join("reference");
    simclr(&with(pretrain(&data, &reference, &sets), &["--workers", "2"])).expect(0, &[]);

    // The other worker is started by hand, so that its end can be observed.
    let (run, at) = (dir.path().join("run"), free_address());
    let first = with(pretrain(&data, &run, &sets), &["--workers", "2", "--worker", "0", "--meet", &at]);
    let (second, mut first) = (start(&worker(&data, "1", "2", &at)), start(&first));
    wait_for(&run, 7, &mut first);
    first.kill().unwrap();
    // A process that a signal ended has no exit code.
    let killed = finish(first).code.is_none();
    let second = finish(second);
    if killed {
        second.expect(1, &["worker 0 has gone"]);
    } else {
        second.expect(0, &[]);
        common::skipped(": the run was faster than who would kill its first worker");
    }
    simclr(&with(resume(&data, &run), &["--workers", "2"])).expect(0, &[]);
    assert_same_run(&run, &reference);
}

#[test]
fn workers_that_cannot_train_together_say_why_and_leave_nothing() {
    let (dir, data) = small_data();
    let (run, at) = (dir.path().join("run"), free_address());
    let first = |more: &[&str]| with(pretrain(&data, &run, &[]), more);
    // Bad arguments.
    simclr(&first(&["--workers", "2", "--worker", "1"])).expect(2, &["--meet"]);
    simclr(&first(&["--workers", "0"])).expect(2, &["from 1 to 1,024"]);
    simclr(&first(&["--workers", "2", "--meet", &at])).expect(2, &["--worker 0 to 1"]);
    let no_folder = ["pretrain", path(&data), "--workers", "2", "--worker", "0", "--meet", &at];
    simclr(&no_folder).expect(2, &["give --out RUN"]);
    simclr(&first(&["--workers", "5"])).expect(2, &["`train.batch` is 16", "use 15 or 20"]);
    simclr(&first(&["--workers", "1000"]))
        .expect(2, &["`train.batch` is 16", "at most 8 workers can share it"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    simclr(&first(&["--workers", "2", "--worker", "0", "--meet", &taken]))
        .expect(1, &["cannot listen at", "free"]);
    // The second worker has other images than the first: both say so.
    let other = dir.path().join("other");
    class_folders(&other, 3, 10);
    let second = start(&worker(&other, "1", "2", &at));
    let told = ["worker 1 has 30 images, worker 0 48; give every worker the same data"];
    simclr(&first(&["--workers", "2", "--worker", "0", "--meet", &at])).expect(1, &told);
    finish(second).expect(1, &told);
    // The second worker has no data.
    let second = start(&worker(Path::new("nowhere"), "1", "2", &at));
    simclr(&first(&["--workers", "2", "--worker", "0", "--meet", &at]))
        .expect(1, &["worker 1 stopped", "nowhere"]);
    finish(second).expect(2, &["nowhere"]);
    assert!(!run.exists());
}

#[test]
fn what_was_saved_before_a_worker_went_stays() {
    let (dir, data) = small_data();
    let (run, at) = (dir.path().join("run"), free_address());
    // Nothing is logged before the end of the run.
    let sets = ["train.epochs=1000", "train.log_every=1000000", "train.checkpoint_every=2", "train.batch=8"];
    let first =
        start(&with(pretrain(&data, &run, &sets), &["--workers", "2", "--worker", "0", "--meet", &at]));
    let mut second = start(&worker(&data, "1", "2", &at));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !run.join("checkpoints").is_dir() || common::checkpoints(&run).is_empty() {
        assert!(std::time::Instant::now() < deadline, "nothing is saved");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    second.kill().unwrap();
    finish(second);
    finish(first).expect(1, &["worker 1 has gone"]);
    assert!(!common::checkpoints(&run).is_empty());
}

#[test]
fn workers_numbered_by_a_launcher_take_a_run_up_with_the_same_words() {
    let (dir, data) = small_data();
    let (run, at) = (dir.path().join("run"), free_address());
    let words = |resume: &[&str]| {
        with(pretrain(&data, &run, &["train.epochs=1"]), &[&["--meet", &at], resume].concat())
    };
    let launch = |words: &[String]| {
        let ranks = ["0", "1"].map(|rank| {
            let mut command = common::command(words);
            command.env("OMPI_COMM_WORLD_RANK", rank).env("OMPI_COMM_WORLD_SIZE", "2");
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        });
        ranks.map(|rank| finish(rank).expect(0, &[]))
    };
    launch(&words(&[]));
    let mut again = resume(&data, &run);
    again.extend(["--meet".to_owned(), at.clone()]);
    // As if the run had been stopped before anything was saved.
    std::fs::remove_file(common::checkpoints(&run).pop().unwrap()).unwrap();
    launch(&again);
    assert_eq!(losses(&run).len(), 3);
}

#[test]
fn a_plan_for_several_is_told() {
    let (dir, data) = small_data();
    let words = with(pretrain(&data, &dir.path().join("run"), &[]), &["--dry-run", "--workers", "4"]);
    simclr(&words).expect(0, &["4 workers share each batch"]);
}

#[test]
fn a_batch_that_is_left_to_the_program_can_be_shared() {
    let (dir, data) = small_data();
    let words = pretrain(&data, &dir.path().join("run"), &["train.batch=auto"]);
    let plan = |workers| simclr(&with(words.clone(), &["--dry-run", "--workers", workers]));
    plan("2").expect(0, &["batch of 8: "]);
    let reply = plan("3")
        .expect(0, &["batch of 6, for 3 workers to share, instead of 8: 48 images", "3 workers share"]);
    assert!(reply.out.contains("batch = 6\n"), "{}", reply.out);
}
