//! Files that cannot be written: the message names what is missing, and what was saved before is intact.

mod common;

use std::fs;
use std::path::Path;

use common::{TINY, path, resume, shell, simclr, small_data};

/// A write that fails halfway: the message names the file, and what was saved before is intact.
#[test]
fn files_that_cannot_grow() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    // In blocks of 512 bytes: enough for the text files, but not for a checkpoint.
    let script = format!(
        "ulimit -f 100; exec \"$PROGRAM\" pretrain \"$1\" --out \"$2\" --threads 1 --set {} train.checkpoint_every=3",
        TINY.join(" ")
    );
    shell(&script, &[&data, &out]).expect(1, &["cannot write", "step-00000003", "ulimit -f"]);
    simclr(&resume(&data, &out)).expect(0, &["no checkpoint yet"]);
}

/// A disk that fills up during a run loses nothing that was saved, and the run can be resumed once there is space.
#[test]
fn a_full_disk() {
    let (dir, data) = small_data();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // A small disk in a mount namespace of its own, which ends with the shell.
    let inside = format!(
        "mount -t tmpfs -o size=1800k tmpfs \"$2\" || exit 77
         \"$PROGRAM\" pretrain \"$1\" --out \"$2/run\" --threads 1 --set {} train.keep_checkpoints=9 train.checkpoint_every=3 train.epochs=6
         echo \"full: $?\"
         ls \"$2/run/checkpoints\"
         mount -o remount,size=64m \"$2\"
         \"$PROGRAM\" pretrain \"$1\" --out \"$2/run\" --resume
         echo \"then: $?\"",
        TINY.join(" ")
    );
    let script = format!("unshare -rm sh -c '{}' sh \"$1\" \"$2\"", inside.replace('\'', r"'\''"));
    let reply = shell(&script, &[Path::new(&data), &disk]);
    if reply.code != Some(0) && !reply.out.contains("full:") {
        common::skipped(&format!(": no small disk can be mounted here: {}", reply.err));
        return;
    }
    let reply = reply.expect(0, &["cannot write", "No space left", "free some space", "resuming after step"]);
    // The message names the newest checkpoint that exists, after what has to be fixed.
    let newest = reply.out.lines().filter(|line| line.starts_with("step-")).max().unwrap();
    let at = |words: &str| reply.err.find(words).unwrap_or_else(|| panic!("no {words}: {}", reply.err));
    assert!(
        at("No space left")
            < at(&format!("the newest checkpoint is {}/run/checkpoints/{newest}", path(&disk))),
        "{}",
        reply.err
    );
    assert!(reply.err.contains("after it could not be saved: once that is mended"), "{}", reply.err);
    assert!(reply.out.contains("full: 1") && reply.out.contains("then: 0"), "{}\n{}", reply.out, reply.err);
}
