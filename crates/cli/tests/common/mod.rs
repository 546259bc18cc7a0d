//! Runs the program as a user does, on tiny data.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_simclr");

/// The user's cache folder.
pub const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// The settings of a tiny run: a ResNet-18 of 4 channels on 16 x 16 pixels, with 3 steps an epoch on 48 images.
pub const TINY: [&str; 7] = [
    "data.image_size=16",
    "encoder.width=0.0625",
    "head.dim=16",
    "train.batch=16",
    "train.epochs=2",
    "optim.warmup_epochs=1",
    "data.holdout=0",
];

/// The exit code and the output of the program.
pub struct Reply {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Reply {
    /// Asserts the exit code and that the messages name all of `words`.
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Reply {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        self
    }

    /// The object on the last line of standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\n{}", self.err))
    }
}

/// What a program replied that has ended.
#[track_caller]
pub fn reply(output: Output) -> Reply {
    let text = |bytes| String::from_utf8(bytes).expect("messages are UTF-8");
    let reply = Reply { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    for trace in ["panicked", "RUST_BACKTRACE", "unwrap()"] {
        assert!(!reply.err.contains(trace), "a panic: {}", reply.err);
    }
    assert!(!reply.err.contains('\x1b'), "escape sequences off a terminal: {:?}", reply.err);
    reply
}

/// The program with arguments. It computes on one thread, since tests run in parallel.
pub fn command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("RUST_LOG").env("RAYON_NUM_THREADS", "1").env("XDG_CACHE_HOME", CACHE);
    command.stdin(Stdio::null());
    command
}

/// Runs the program.
#[track_caller]
pub fn simclr<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Reply {
    reply(command(arguments).output().expect("the program starts"))
}

/// Runs a shell script that may use `$PROGRAM`.
#[track_caller]
pub fn shell(script: &str, arguments: &[&Path]) -> Reply {
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg("sh")
        .args(arguments)
        .env("PROGRAM", PROGRAM)
        .env("XDG_CACHE_HOME", CACHE)
        .output();
    reply(output.expect("there is a shell"))
}

/// The arguments of a tiny run, with further settings.
pub fn pretrain(data: &Path, out: &Path, sets: &[&str]) -> Vec<String> {
    let mut words: Vec<String> =
        ["pretrain", path(data), "--out", path(out), "--threads", "1", "--set"].map(str::to_owned).to_vec();
    words.extend(TINY.iter().chain(sets).map(|&set| set.to_owned()));
    words
}

/// The arguments that resume it.
pub fn resume(data: &Path, out: &Path) -> Vec<String> {
    ["pretrain", path(data), "--out", path(out), "--resume"].map(str::to_owned).to_vec()
}

/// Starts the program and leaves it running.
pub fn start(arguments: &[String]) -> Child {
    command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Waits for a started program, and returns its reply.
#[track_caller]
pub fn finish(child: Child) -> Reply {
    reply(child.wait_with_output().expect("the program ends"))
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A picture that differs for each number, and whose class determines its brightness.
pub fn picture(side: u32, class: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let wave = |k: u32| ((x * (3 + k) + y * (5 + number % 7) + number * 11 * k) % 64) as u8;
        Rgb([wave(1) + 60 * class as u8, wave(2) + 30, wave(3) + 90])
    })
}

/// A folder with one sub-folder per class and `count` images of 20 x 20 pixels in each.
pub fn class_folders(folder: &Path, classes: u32, count: u32) {
    numbered_folders(folder, classes, 0..count);
}

/// The same with the images of these numbers. Images of different numbers below 448 differ.
pub fn numbered_folders(folder: &Path, classes: u32, numbers: Range<u32>) {
    for class in 0..classes {
        let folder = folder.join(format!("class {class}"));
        fs::create_dir_all(&folder).unwrap();
        for number in numbers.clone() {
            picture(20, class, number).save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

/// A temporary folder with 48 images of three classes in `data`.
pub fn small_data() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    class_folders(&data, 3, 16);
    (dir, data)
}

/// The checkpoints of a run, oldest first.
pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    found.sort();
    found
}

/// The lines of the metrics log.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines of JSON")).collect()
}

/// Turns one bit of a byte in the middle of a file.
pub fn flip_a_byte(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(file, bytes).unwrap();
}

/// Reports to standard error that a test or a part of it was skipped: the output of tests that pass is hidden.
pub fn skipped(why: &str) {
    drop(writeln!(io::stderr(), "SKIPPED{why}"));
}

/// Every tensor of a file.
pub fn tensors(file: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).expect("a readable file");
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect();
    tensors.sort();
    tensors
}

/// Every tensor of a run's last checkpoint: parameters, averages, momentum.
pub fn final_tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let tensors = tensors(&checkpoints(run).pop().expect("a checkpoint"));
    assert!(tensors.len() > 100);
    tensors
}

/// The steps of the log, and their losses bit by bit.
pub fn losses(run: &Path) -> Vec<(u64, u64)> {
    let steps = metrics(run).into_iter().filter(|line| line["kind"] == "step");
    steps.map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap().to_bits())).collect()
}

#[track_caller]
pub fn assert_same_run(run: &Path, reference: &Path) {
    assert_eq!(losses(run), losses(reference));
    assert!(final_tensors(run) == final_tensors(reference), "other bits at the end");
    // The file also holds the configuration, in which the threads may differ.
    let encoder = |run: &Path| tensors(&run.join("encoder.safetensors"));
    assert!(encoder(run) == encoder(reference), "another encoder");
}

/// Waits until the run has logged `steps` steps. Returns false if it ended before.
pub fn wait_for(run: &Path, steps: usize, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let text = fs::read(run.join("metrics.jsonl")).unwrap_or_default();
        if text.iter().filter(|&&byte| byte == b'\n').count() >= steps {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "the run stands still");
        sleep(Duration::from_millis(2));
    }
}
