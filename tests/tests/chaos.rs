//! `make chaos` in the small: every means that the machine has troubles five processes, and nothing is lost.
//! And what must not pass does not: writes that were never sent, and a node that ends for no reason.
//!
//! `SEED=...` repeats what a run tries.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::{fs, iter};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use starling_tests::chaos::Means;
use tempfile::TempDir;

/// Something acknowledged was lost, or a node ended.
const WRONG: i32 = 3;

/// Five nodes at a time are enough for a machine.
static ALONE: Mutex<()> = Mutex::new(());

struct Run {
    status: ExitStatus,
    said: String,
    figures: Value,
}

impl Run {
    fn count(&self, name: &str) -> u64 {
        self.figures[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.figures))
    }

    /// Takes the folder away that a failed run keeps.
    fn forget(&self) {
        let kept =
            PathBuf::from(self.figures["kept"].as_str().expect("a failed run keeps its folder"));
        assert!(kept.join("node1.log").exists(), "{}", kept.display());
        assert!(self.said.contains("make chaos SEED="), "{}", self.said);
        fs::remove_dir_all(&kept).expect("it can be removed");
    }
}

/// Runs it, with a look at each line that it says.
fn run(flags: &[&str], mut look: impl FnMut(u32, &str)) -> Run {
    let _alone = ALONE.lock();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let json = folder.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-chaos"));
    command.args(flags).arg("--json").arg(&json).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it can be run");
    let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let mut said = String::new();
    for line in lines {
        let line = line.expect("it says text");
        look(child.id(), &line);
        said.extend(iter::once(line.as_str()).chain(["\n"]));
    }
    let status = child.wait().expect("it can be waited for");
    eprintln!("{said}");
    let figures = fs::read(json).expect("it writes its figures");
    Run { status, said, figures: serde_json::from_slice(&figures).expect("they are JSON") }
}

#[test]
fn five_processes_in_every_kind_of_trouble_lose_nothing() {
    let run = run(&["--duration", "15s"], |_, _| {});
    assert!(run.status.success(), "{}", run.said);
    for means in Means::ALL {
        let skipped = run.figures["skipped"][means.name()].as_str();
        let used = run.figures["used"][means.name()].as_u64().unwrap_or(0);
        assert_ne!(skipped.is_some(), used > 0, "{means} is either used or skipped");
        assert!(skipped != Some(""), "{means} is skipped for a reason");
    }
    for name in ["lost", "stale", "resurrected", "damaged", "unread"] {
        assert_eq!(run.count(name), 0, "{name}");
    }
    let (acknowledged, checked) = (run.count("acknowledged"), run.count("checked"));
    assert!(acknowledged > 2_000, "the load was hardly there");
    assert_eq!(acknowledged, checked, "all of it was read back");
    let synced = run.figures["used"][Means::SyncError.name()].is_null();
    assert!(synced || run.count("syncs_failed") > 0, "a fault that nobody met");
    assert!(synced || run.count("ended_by_faults") > 0, "a node goes on after a failed sync");
}

#[test]
fn a_write_that_is_forgotten_is_found() {
    let flags = ["--duration", "3s", "--only", "kill,pause", "--forget-every", "100"];
    let run = run(&flags, |_, _| {});
    assert_eq!(run.status.code(), Some(WRONG), "{}", run.said);
    assert!(run.count("stale") + run.count("resurrected") > 0, "{}", run.said);
    run.forget();
}

#[test]
fn a_node_that_ends_for_no_reason_is_found() {
    let mut killed = false;
    let run = run(&["--duration", "60s", "--only", "pause"], |chaos, line| {
        if !killed && line.contains(" writes ") {
            let node = child_of(chaos).expect("its nodes run");
            kill_process(node, Signal::KILL).expect("it can be killed");
            killed = true;
        }
    });
    assert_eq!(run.status.code(), Some(WRONG), "{}", run.said);
    assert!(run.said.contains("ended by itself"), "{}", run.said);
    run.forget();
}

/// A process whose parent is `parent`.
fn child_of(parent: u32) -> Option<Pid> {
    let processes = fs::read_dir("/proc").expect("the system shows its processes");
    let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let child = numbers.find(|number: &i32| {
        // A process may end while it is looked at.
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    })?;
    Pid::from_raw(child)
}
