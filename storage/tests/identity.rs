//! Identity and buckets over restarts: what is refused, what is kept, what changes.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_storage::identity::IDENTITY_FILE;
use starling_storage::planted::Planted;
use starling_storage::{
    ActorChange, BucketError, BucketRegistry, DiskFiles, Files, Identity, IdentityError,
    MemoryStore, Store,
};
use support::identity;

#[test]
fn a_directory_keeps_its_identity_and_counts_its_starts() {
    let directory = tempfile::tempdir().unwrap();
    let files = || Arc::new(DiskFiles::open(directory.path()).unwrap());
    let first = identity(files(), 1, 1);
    assert!(first.was_fresh());
    let second = identity(files(), 1, 2);
    assert!(!second.was_fresh());
    assert_eq!(second.host_id(), first.host_id());
    assert_eq!(second.actor(), first.actor());
    assert_eq!((first.incarnation(), second.incarnation()), (1, 2));

    let rebooted = identity(files(), 2, 3);
    assert_eq!(rebooted.change_at_open(), Some(ActorChange::UncleanBoot));
    assert_ne!(rebooted.actor(), first.actor());
    rebooted.mark_clean().unwrap();
    let after_clean_stop = identity(files(), 3, 4);
    assert_eq!(after_clean_stop.change_at_open(), None);
    assert_eq!(after_clean_stop.actor(), rebooted.actor());
}

#[test]
fn a_new_actor_is_durable_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let files = || Arc::new(DiskFiles::open(directory.path()).unwrap());
    let first = identity(files(), 1, 1);
    let old = first.actor();
    let new = first.replace_actor(old, ActorChange::AmnesiaRevealed).unwrap();
    let again = first.replace_actor(old, ActorChange::AmnesiaRevealed).unwrap();
    assert_eq!(new, again, "the fault was dealt with");
    assert_eq!(identity(files(), 1, 2).actor(), new);
}

#[test]
fn a_directory_of_another_cluster_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let files = || Arc::new(DiskFiles::open(directory.path()).unwrap());
    identity(files(), 1, 1).join_cluster([0xab; 16]).unwrap();
    let reopened = identity(files(), 1, 2);
    reopened.join_cluster([0xab; 16]).unwrap();
    match reopened.join_cluster([0xcd; 16]) {
        Err(IdentityError::OtherCluster { path, found, expected }) => {
            assert_eq!(path, directory.path());
            assert_eq!((found, expected), ("ab".repeat(16), "cd".repeat(16)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_identity_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let files = Arc::new(DiskFiles::open(directory.path()).unwrap());
    identity(files.clone(), 1, 1);
    let mut record = files.read(IDENTITY_FILE).unwrap().unwrap();
    record[30] ^= 1;
    files.replace(IDENTITY_FILE, &record).unwrap();
    let random = Box::new(StdRng::seed_from_u64(2));
    let opened = Identity::open_or_create(files, "boot-1", random, Planted::NONE);
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
}

#[test]
fn a_bucket_s_name_is_durable_when_its_id_is_given_out() {
    let store = Arc::new(MemoryStore::new());
    let registry = BucketRegistry::load(store.clone()).unwrap();
    let id = registry.open("demo.carts").unwrap();
    assert_eq!(registry.open("demo.carts").unwrap(), id);
    store.crash();
    let registry = BucketRegistry::load(store.clone()).unwrap();
    assert_eq!(registry.name(id).as_deref(), Some("demo.carts"));
    let before = store.latest_sequence();
    registry.open("demo.carts").unwrap();
    assert_eq!(store.latest_sequence(), before, "known names cost no write");
}

#[test]
fn a_second_name_on_an_id_is_refused() {
    let registry = BucketRegistry::load(Arc::new(MemoryStore::new())).unwrap();
    let id = registry.open("demo.carts").unwrap();
    match registry.adopt(id, "demo.other") {
        Err(BucketError::Collision { name, other }) => {
            assert_eq!((name.as_str(), other.as_str()), ("demo.other", "demo.carts"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn bucket_names_follow_the_rules() {
    let registry = BucketRegistry::load(Arc::new(MemoryStore::new())).unwrap();
    let long = format!("demo.{}", "x".repeat(49));
    for bad in ["", "demo", "demo.", ".carts", "a.b.c", "demo.ca rts", "demo.ü", &long] {
        let refused = registry.open(bad);
        assert!(matches!(refused, Err(BucketError::BadName { .. })), "{bad:?}");
    }
    for n in 0..1_000 {
        registry.open(&format!("demo.bucket-{n}")).unwrap();
    }
    let refused = registry.open("demo.one_more");
    assert!(matches!(refused, Err(BucketError::TooMany { max: 1_000 })));
    registry.open("demo.bucket-7").unwrap();
}
