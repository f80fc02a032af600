//! Write-ahead logs that are torn, zeroed or flipped at many places: the replica recovers, or says that it
//! has lost writes and takes another name, or refuses to start. It never answers wrongly.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use starling_ring::SlotGrid;
use starling_storage::planted::Planted;
use starling_storage::values::{Context, OperationId};
use starling_storage::{
    ActorChange, DiskFiles, Durability, HintLimits, ManualClock, PutRequest, Replica,
    ReplicaConfig, ReplicaLimits, RocksOptions, RocksStore, Tier,
};
use support::{START_US, identity, values};

const KEYS: u64 = 120;
/// Places at which each kind of damage is done.
const PLACES: u64 = 60;
/// The high-water mark is written at most so often.
const SECOND_US: i64 = 1_000_001;

/// How the puts follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Each is marked with the next.
    ASecondApart,
    /// All within a second, and then nothing for longer than that.
    AtOnceThenIdle,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The file ends here, as after a write that was cut short.
    Torn,
    /// From here on a page of zeros, as after a power cut on some file systems.
    Zeroed,
    /// One bit, as on an old disk.
    Flipped,
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("key {n:03}"))
}

fn value(n: u64) -> Bytes {
    Bytes::from(format!("value {n} {}", "x".repeat(n as usize % 90)))
}

/// Opens what is in `directory`; the reason if it cannot be.
fn open(directory: &Path, wall: &Arc<ManualClock>) -> Result<Replica, String> {
    let files = Arc::new(DiskFiles::open(directory).unwrap());
    let store = RocksStore::open(&directory.join("store"), &RocksOptions::default())
        .map_err(|error| error.to_string())?;
    let config = ReplicaConfig {
        store: Arc::new(store),
        files: files.clone(),
        identity: identity(files, 1, 1),
        wall: wall.clone(),
        durability: Durability::Inline,
        limits: ReplicaLimits::default(),
        hint_limits: HintLimits { bytes_max: 256 << 20 },
        grid: SlotGrid::new(4).expect("four bits are allowed"),
        observe_sync: |_| {},
        fatal: Box::new(|reason| panic!("fatal: {reason}")),
        planted: Planted::NONE,
    };
    Replica::open(config).map_err(|error| error.to_string())
}

/// A directory as a killed process leaves it: everything acknowledged is in the log, and only there.
fn write_all(directory: &Path, wall: &Arc<ManualClock>, pace: Pace) {
    let replica = open(directory, wall).unwrap();
    for n in 0..KEYS {
        let request = PutRequest {
            table: 1,
            key: key(n),
            client: Context::new(),
            operation: OperationId([n as u8; 16]),
            value: Some(value(n)),
            lww: false,
            hints: Vec::new(),
        };
        replica.put(&request, Tier::Any).unwrap();
        support::sync(&replica);
        if pace == Pace::ASecondApart {
            wall.advance(SECOND_US);
        }
    }
    wall.advance(SECOND_US);
    replica.commit().sync_now();
    std::mem::forget(replica);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The log that holds the writes: the largest.
fn log(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn damage(path: &Path, damage: Damage, place: u64) {
    let mut bytes = fs::read(path).unwrap();
    let at = (bytes.len() as u64 * place / PLACES) as usize;
    match damage {
        Damage::Torn => bytes.truncate(at),
        Damage::Zeroed => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
        }
        Damage::Flipped => bytes[at] ^= 1 << (place % 8),
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_log_never_yields_a_wrong_answer() {
    check(Pace::ASecondApart);
}

#[test]
fn what_was_synced_last_before_a_pause_is_not_lost_in_silence() {
    check(Pace::AtOnceThenIdle);
}

fn check(pace: Pace) {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    fs::create_dir(&whole).unwrap();
    let wall = Arc::new(ManualClock::new(START_US));
    write_all(&whole, &wall, pace);
    let (mut recovered, mut declared, mut refused) = (0, 0, 0);
    for kind in [Damage::Torn, Damage::Zeroed, Damage::Flipped] {
        for place in 0..PLACES {
            let damaged = directory.path().join(format!("{kind:?}-{place}"));
            copy(&whole, &damaged);
            damage(&log(&damaged), kind, place);
            match open(&damaged, &wall) {
                Err(reason) => {
                    assert!(!reason.is_empty());
                    refused += 1;
                }
                Ok(replica) => {
                    let lost = judge(&replica, kind, place);
                    let changes = &replica.report().actor_changes;
                    if lost > 0 {
                        let declares = changes.contains(&ActorChange::LostWrites);
                        assert!(declares, "{kind:?} at {place}: {lost} lost, unsaid");
                        assert_eq!(declares, !replica.is_whole());
                        declared += u32::from(declares);
                    } else {
                        recovered += 1;
                    }
                }
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    eprintln!("{recovered} recovered, {declared} declared that writes are lost, {refused} refused");
    assert!(declared > PLACES as u32, "the damage hits nothing");
}

/// Counts the keys that are gone. A key that is there has the value that was put.
fn judge(replica: &Replica, kind: Damage, place: u64) -> u64 {
    let mut lost = 0;
    for n in 0..KEYS {
        match &values(replica, &key(n))[..] {
            [] => lost += 1,
            [found] => assert_eq!(*found, value(n), "{kind:?} at {place}: key {n}"),
            more => panic!("{kind:?} at {place}: key {n} is {more:?}"),
        }
    }
    lost
}
