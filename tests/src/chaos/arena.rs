//! Five nodes and everything that can be done to them. It does one ordeal at a time and mends it.
//!
//! Invariant: a node that ends although nothing was done to it that ends nodes is noticed, and the run is
//! over: [`Broken`]. What clients see is not looked at here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use starling_node::time::now;
use tokio::time::{Instant, sleep};

use super::disk::SmallDisk;
use super::links::Links;
use super::plan::{Deed, Fault, Means, Ordeal};
use super::preload::{Control, Preload};
use crate::Cluster;
use crate::cluster::{LOOK_EVERY, sees_up};
use crate::process::Node;

/// How many nodes there are.
pub(super) const NODES: u8 = 5;
/// The one whose disk can be filled.
const SMALL_DISK: u8 = NODES;
/// On a machine that also does other things; alone it takes a second.
const MENDED_WITHIN: Duration = Duration::from_secs(60);
/// Requests that wait for nodes which are not there, their connections, and the flush.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);
/// One look at whether a node serves, between looks at whether all still run.
const SERVES_WITHIN: Duration = Duration::from_secs(1);
/// How long after a failing disk was mended a node may still end from it.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Why a run cannot go on: the cluster did what it must not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(String);

impl Broken {
    pub(super) fn new(why: String) -> Broken {
        Broken(why)
    }
}

/// What a node is meant to be.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    down: bool,
    /// Its disk fails.
    failing: bool,
    failed_until: Option<Instant>,
}

impl Standing {
    fn may_end(self) -> bool {
        self.failing || self.failed_until.is_some_and(|until| now() < until)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Arena {
    // It is dropped before the folder that it is mounted in.
    disk: Option<SmallDisk>,
    links: Option<Links>,
    controls: Vec<Control>,
    cluster: Cluster,
    standing: [Standing; NODES as usize],
    ended_by_faults: u64,
}

/// What a machine lacks, by the means that needs it.
pub(super) type Skipped = BTreeMap<&'static str, String>;

impl Arena {
    /// Starts the nodes with what the wished means need. Returns those that the machine has.
    ///
    /// # Errors
    /// No cluster, for a reason that has nothing to do with any means.
    pub(super) async fn start(wished: &[Means]) -> anyhow::Result<(Arena, Vec<Means>, Skipped)> {
        let builder = Cluster::builder().nodes(NODES).keyspace("demo", 3);
        // Small, so that files are written and merged all the time and space runs out soon.
        let builder = builder.setting("memtable", "\"1MiB\"").setting("block_cache", "\"8MiB\"");
        let cluster = builder.setting("worker_threads", "2").prepare();
        let standing = [Standing::default(); NODES as usize];
        let mut arena = Arena {
            disk: None,
            links: None,
            controls: Vec::new(),
            cluster,
            standing,
            ended_by_faults: 0,
        };
        let mut skipped = Skipped::new();
        let needs_preload = [Means::Cut, Means::Clock, Means::SyncError];
        if needs_preload.iter().any(|means| wished.contains(means))
            && let Err(why) = arena.preload().await?
        {
            let lacking = needs_preload.iter().filter(|means| wished.contains(means));
            skipped.extend(lacking.map(|means| (means.name(), why.clone())));
        }
        if wished.contains(&Means::DiskFull) {
            match SmallDisk::mount(&arena.cluster.node(SMALL_DISK).data_dir()) {
                Ok(disk) => arena.disk = Some(disk),
                Err(why) => drop(skipped.insert(Means::DiskFull.name(), why)),
            }
        }
        if let Err(error) = arena.come_up().await {
            return Err(error.context(format!("the logs are in {}", arena.keep().display())));
        }
        let has = |means: &&Means| !skipped.contains_key(means.name());
        let available = wished.iter().filter(has).copied().collect();
        Ok((arena, available, skipped))
    }

    async fn come_up(&mut self) -> anyhow::Result<()> {
        self.cluster.nodes().iter_mut().for_each(Node::start);
        self.mend().await?;
        self.all_up().await?;
        let redirected = self.controls.iter().all(|control| control.redirected() > 0);
        ensure!(redirected, "a node with the preloaded library connects to others past the relays");
        Ok(())
    }

    async fn preload(&mut self) -> anyhow::Result<Result<(), String>> {
        let preload = match Preload::compile(self.cluster.folder()) {
            Ok(preload) => preload,
            Err(why) => return Ok(Err(why)),
        };
        for (node, number) in self.cluster.nodes().iter_mut().zip(1..) {
            match preload.equip(number, node) {
                Ok(control) => self.controls.push(control),
                Err(why) => anyhow::bail!(why),
            }
        }
        let links = Links::open(self.cluster.network(), NODES).await;
        self.links = Some(links.context("the relays cannot listen")?);
        Ok(Ok(()))
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How many times a node ended because its disk failed.
    pub(super) fn ended_by_faults(&self) -> u64 {
        self.ended_by_faults
    }

    /// How many syncs were made to fail.
    pub(super) fn syncs_failed(&self) -> u64 {
        self.controls.iter().map(|control| u64::from(control.syncs_failed())).sum()
    }

    /// Ends everything and keeps the folder with the logs; where it is.
    pub(super) fn keep(self) -> PathBuf {
        let Arena { disk, cluster, .. } = self;
        let kept = cluster.keep();
        drop(disk);
        kept
    }

    /// Lets `ordeal` happen, and returns when every node serves again.
    ///
    /// # Errors
    /// A node that ended without reason, or does not come back.
    pub(super) async fn endure(&mut self, ordeal: &Ordeal) -> Result<(), Broken> {
        let began = now();
        let begins = ordeal.faults.iter().map(|fault| (fault.begins, true, fault));
        let ends = ordeal.faults.iter().map(|fault| (fault.ends, false, fault));
        let mut events: Vec<_> = begins.chain(ends).collect();
        events.sort_by_key(|(at, ..)| *at);
        for (at, begins, Fault { deed, .. }) in events {
            self.pass_until(began + at).await?;
            if begins { self.begin(deed)? } else { self.end(deed).await? }
        }
        self.mend().await
    }

    /// Lets time pass, and looks whether all nodes run that should.
    pub(super) async fn pass_until(&mut self, until: Instant) -> Result<(), Broken> {
        loop {
            self.look()?;
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(LOOK_EVERY.min(left)).await;
        }
    }

    fn begin(&mut self, deed: &Deed) -> Result<(), Broken> {
        match *deed {
            Deed::Kill(node) => {
                self.standing(node).down = true;
                self.node(node).kill();
            }
            Deed::Restart(node) => {
                if self.node(node).is_running() {
                    self.standing(node).down = true;
                    self.node(node).ask_to_stop();
                }
            }
            Deed::Pause(node) => {
                if self.node(node).is_running() {
                    self.node(node).pause();
                }
            }
            Deed::Cut(ref links) => {
                let relays = self.links.as_ref().expect("cuts are dealt only with relays");
                links.iter().for_each(|(from, to)| relays.cut(*from, *to));
            }
            Deed::Clock { node, jump_ms } => self.control(node).shift_clock(jump_ms),
            Deed::DiskFull(node) => {
                self.standing(node).failing = true;
                let filled = self.disk.as_ref().expect("dealt only with a small disk").fill();
                filled
                    .map_err(|error| Broken(format!("the small disk cannot be filled: {error}")))?;
            }
            Deed::SyncError(node) => {
                self.standing(node).failing = true;
                self.control(node).fail_syncs(true);
            }
        }
        Ok(())
    }

    async fn end(&mut self, deed: &Deed) -> Result<(), Broken> {
        match *deed {
            Deed::Kill(node) => self.start_again(node),
            Deed::Restart(node) => {
                self.stopped(node).await?;
                self.start_again(node);
            }
            Deed::Pause(node) => {
                if self.node(node).is_running() {
                    self.node(node).resume();
                }
            }
            Deed::Cut(_) => self.links.as_ref().expect("there was a cut").heal(),
            Deed::Clock { node, .. } => self.control(node).shift_clock(0),
            Deed::DiskFull(node) => {
                let freed = self.disk.as_ref().expect("it was filled").free();
                freed
                    .map_err(|error| Broken(format!("the small disk cannot be freed: {error}")))?;
                self.disk_mended(node);
            }
            Deed::SyncError(node) => {
                self.control(node).fail_syncs(false);
                self.disk_mended(node);
            }
        }
        Ok(())
    }

    fn disk_mended(&mut self, node: u8) {
        let standing = self.standing(node);
        standing.failing = false;
        standing.failed_until = Some(now() + AFTERMATH);
        if standing.down {
            self.start_again(node);
        }
    }

    /// Waits until a node that was asked to stop has done so.
    async fn stopped(&mut self, number: u8) -> Result<(), Broken> {
        let until = now() + STOPPED_WITHIN;
        loop {
            match self.node(number).exited() {
                Some(status) if status.success() => return Ok(()),
                Some(_) if self.standing(number).may_end() => return Ok(()),
                Some(status) => return Err(Broken(format!("node {number} stopped with {status}"))),
                None if !self.node(number).is_running() => return Ok(()),
                None if now() < until => sleep(LOOK_EVERY).await,
                None => return Err(Broken(format!("node {number} does not stop"))),
            }
        }
    }

    /// Notices nodes that ended: those that might are started once their disk is mended.
    fn look(&mut self) -> Result<(), Broken> {
        for number in 1..=NODES {
            let standing = *self.standing(number);
            if standing.down {
                continue;
            }
            let Some(status) = self.node(number).exited() else { continue };
            if !standing.may_end() {
                return Err(Broken(format!("node {number} ended by itself with {status}")));
            }
            self.ended_by_faults += 1;
            self.standing(number).down = true;
            if !standing.failing {
                self.start_again(number);
            }
        }
        Ok(())
    }

    /// Waits until every node serves.
    pub(super) async fn mend(&mut self) -> Result<(), Broken> {
        let until = now() + MENDED_WITHIN;
        for number in 1..=NODES {
            while let Err(why) = self.node(number).serves(SERVES_WITHIN).await {
                self.look()?;
                if now() >= until {
                    return Err(Broken(why));
                }
            }
        }
        Ok(())
    }

    /// Waits until every node reaches every other.
    pub(super) async fn all_up(&mut self) -> Result<(), Broken> {
        self.wait_for(MENDED_WITHIN, "reach all others", |seen| sees_up(seen, usize::from(NODES)))
            .await
    }

    /// Waits until no node owes another a write.
    pub(super) async fn settled(&mut self, within: Duration) -> Result<(), Broken> {
        self.wait_for(within, "have handed over their hints", |seen| seen.hints_pending == 0).await
    }

    async fn wait_for(
        &mut self,
        within: Duration,
        what: &str,
        holds: impl Fn(&starling_node::overview::Overview) -> bool,
    ) -> Result<(), Broken> {
        let until = now() + within;
        for number in 1..=NODES {
            while !self.cluster.overview(number).await.is_some_and(|seen| holds(&seen)) {
                self.look()?;
                if now() >= until {
                    return Err(Broken(format!("node {number} does not {what} after {within:?}")));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    fn start_again(&mut self, number: u8) {
        self.standing(number).down = false;
        if !self.node(number).is_running() {
            self.node(number).start();
        }
    }

    fn node(&mut self, number: u8) -> &mut Node {
        self.cluster.node(number)
    }

    fn control(&self, number: u8) -> &Control {
        &self.controls[usize::from(number) - 1]
    }

    fn standing(&mut self, number: u8) -> &mut Standing {
        &mut self.standing[usize::from(number) - 1]
    }
}
