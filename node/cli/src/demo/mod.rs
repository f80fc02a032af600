//! `starling demo`: three nodes, a load at QUORUM, a kill -9 in the middle of it, and the proof that
//! nothing acknowledged was lost.
//!
//! The proof is made from outside: what was acknowledged is remembered by the load generator of the
//! client library, read back at ALL, and the scan hashes of the three nodes are compared.

mod load;
mod nodes;
mod report;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use starling_client::load::Verification;
use starling_client::{Client, ConsistencyLevel};
use starling_node::overview::Overview;
use starling_node::time::now;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::{exit, out};
use load::Load;
use nodes::{DemoNode, contact_points, prepare};
use report::{Checked, Event, NodeDigest, Report, Second};

/// Where commands without `--node` look.
const CLIENT_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9050));
/// The bucket of the load.
const BUCKET: &str = "demo.load";
/// The node that is killed: neither the first contact point nor the last.
const VICTIM: usize = 1;
/// How long the others may take to see that a node is down.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// How long the hints for a returned node may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Writes that were acknowledged by two replicas may still be on their way to the third.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the demo. A lost write is a failure; so are replicas that differ.
pub async fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let place = Place::make(args.keep.as_deref())?;
    let mut demo = Demo {
        nodes: prepare(place.path(), &args.network)?,
        report: Report::new(args.json),
        second: 0,
        phase: Duration::from_secs(args.phase),
    };
    let result = tokio::select! {
        result = demo.play(args.concurrency, &place) => result,
        interrupted = interrupted() => {
            interrupted?;
            Err(Failure::Demo { problem: "interrupted; nothing was checked".to_owned() })
        }
    };
    // After the proof the nodes have nothing to lose, but a clean stop is part of the show.
    for node in &mut demo.nodes {
        if let Err(failure) = node.stop().await {
            out::note(failure.to_string());
        }
    }
    let checked = result?;
    if checked.passed {
        demo.report.say(next_steps(&place, demo.nodes[0].listen.native));
        Ok(exit::DONE)
    } else {
        Ok(exit::FAILED)
    }
}

/// Returns when SIGINT or SIGTERM comes.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Where configurations, data and logs are.
enum Place {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Place {
    fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(dir) = keep else {
            return Ok(Self::Temporary(
                tempfile::Builder::new().prefix("starling-demo-").tempdir()?,
            ));
        };
        std::fs::create_dir_all(dir)?;
        if std::fs::read_dir(dir)?.next().is_some() {
            return Err(Failure::Usage {
                problem: format!("{} is not empty", dir.display()),
                advice: "name a directory that is empty or does not exist".to_owned(),
            });
        }
        Ok(Self::Kept(std::path::absolute(dir)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

fn next_steps(place: &Place, first: SocketAddr) -> String {
    let (config, first) = match place {
        Place::Temporary(_) => ("config/demo".to_owned(), CLIENT_DEFAULT),
        Place::Kept(dir) => (dir.display().to_string(), first),
    };
    let node = if first == CLIENT_DEFAULT { String::new() } else { format!("--node {first} ") };
    format!(
        "\nnext, each node in a terminal of its own (node2 and node3 likewise), then a write and a read:\n  \
         starling start --config {config}/node1.toml\n  \
         starling put {node}--bucket demo.carts cart:42 milk\n  \
         starling get {node}--bucket demo.carts cart:42"
    )
}

struct Demo {
    nodes: Vec<DemoNode>,
    report: Report,
    second: u64,
    phase: Duration,
}

impl Demo {
    async fn play(&mut self, concurrency: u32, place: &Place) -> Result<Checked, Failure> {
        self.start(place).await?;
        let mut client = Client::builder();
        for contact in contact_points(&self.nodes) {
            client = client.contact_point(contact.to_string());
        }
        let client = client.build().await?;
        let mut load = Load::start(&client, BUCKET, concurrency).await?;
        self.watch(&mut load, self.phase).await?;
        self.kill(&mut load).await?;
        self.watch(&mut load, self.phase).await?;
        self.restart(&mut load).await?;
        let settled = self.watch_hints(&mut load).await?;
        self.watch(&mut load, self.phase.saturating_sub(settled)).await?;
        let outcome = load.stop().await?;
        self.settle().await?;
        let acked_writes = outcome.history.acknowledged();
        let errors = outcome.report.errors.sum();
        self.report.say("\nreading every key at ALL ...");
        let keys = outcome.history.keys() as u64;
        let found = load::read_back(&client, BUCKET, ConsistencyLevel::All, outcome).await?;
        let checked = self.compare(&found, acked_writes, keys, errors).await?;
        for violation in &found.violations {
            out::note(format!("  {violation}"));
        }
        self.report.tell(&Event::Checked(checked.clone()));
        Ok(checked)
    }

    async fn start(&mut self, place: &Place) -> Result<(), Failure> {
        self.report.say("starting three nodes from config/demo ...");
        for node in &self.nodes {
            node.check_ports()?;
        }
        for node in &mut self.nodes {
            node.start()?;
        }
        for node in &mut self.nodes {
            node.ready().await?;
        }
        let overview = self.all_up().await?;
        self.report.table(&overview);
        self.report.tell(&Event::Started {
            nodes: contact_points(&self.nodes).iter().map(ToString::to_string).collect(),
            data: place.path().display().to_string(),
            temporary: matches!(place, Place::Temporary(_)),
        });
        Ok(())
    }

    /// Waits until the first node reaches all, so that the load begins on a whole cluster.
    async fn all_up(&self) -> Result<Overview, Failure> {
        let until = now() + NOTICED_WITHIN;
        loop {
            let overview = self.nodes[0].overview().await?;
            if overview.nodes.iter().all(|node| node.is_up()) {
                return Ok(overview);
            }
            if now() > until {
                let problem = "the nodes serve, but do not all reach one another".to_owned();
                return Err(Failure::Demo { problem });
            }
            sleep(PAUSE).await;
        }
    }

    async fn kill(&mut self, load: &mut Load) -> Result<(), Failure> {
        let victim = &mut self.nodes[VICTIM];
        let event = Event::Killed { node: victim.name.clone(), process_id: victim.process_id() };
        victim.kill().await?;
        self.report.tell(&event);
        let until = now() + NOTICED_WITHIN;
        loop {
            self.tick(load).await?;
            let overview = self.nodes[0].overview().await?;
            let up = overview.nodes.iter().filter(|node| node.is_up()).count();
            if up < self.nodes.len() || now() > until {
                let slots = overview.slots;
                self.report.tell(&Event::Without {
                    node: self.nodes[VICTIM].name.clone(),
                    degraded: slots.degraded as f64 / slots.total().max(1) as f64,
                    below_quorum: slots.below_quorum,
                });
                return Ok(());
            }
        }
    }

    async fn restart(&mut self, load: &mut Load) -> Result<(), Failure> {
        let began = now();
        let victim = &mut self.nodes[VICTIM];
        victim.start()?;
        victim.ready().await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.tell(&Event::Restarted { node: victim.name.clone(), took_ms });
        self.tick(load).await
    }

    /// Watches the load until no node owes another a write; how long that took.
    async fn watch_hints(&mut self, load: &mut Load) -> Result<Duration, Failure> {
        let began = now();
        while self.hints().await > 0 {
            if began.elapsed() > SETTLED_WITHIN {
                return Err(self.owed().await);
            }
            self.tick(load).await?;
        }
        self.report.tell(&Event::HintsSettled);
        Ok(began.elapsed())
    }

    /// Waits until no node owes another a write, without load.
    async fn settle(&self) -> Result<(), Failure> {
        let until = now() + SETTLED_WITHIN;
        while self.hints().await > 0 {
            if now() > until {
                return Err(self.owed().await);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn owed(&self) -> Failure {
        let hints = self.hints().await;
        Failure::Demo { problem: format!("{hints} hints were not delivered in {SETTLED_WITHIN:?}") }
    }

    /// Writes that the running nodes owe to others.
    async fn hints(&self) -> u64 {
        let mut hints = 0;
        for node in &self.nodes {
            // A node that does not answer owes what it owes; it is asked again a moment later.
            hints += node.overview().await.map_or(0, |overview| overview.hints_pending);
        }
        hints
    }

    async fn watch(&mut self, load: &mut Load, how_long: Duration) -> Result<(), Failure> {
        let until = now() + how_long;
        while now() < until {
            self.tick(load).await?;
        }
        Ok(())
    }

    /// Waits for the next second of the load and shows it.
    async fn tick(&mut self, load: &mut Load) -> Result<(), Failure> {
        let progress = load.next().await?;
        self.second += 1;
        let up = match self.nodes[0].overview().await {
            Ok(overview) => overview.nodes.iter().filter(|node| node.is_up()).count(),
            Err(_) => 0,
        };
        self.report.tell(&Event::Second(Second {
            at_s: self.second,
            ok_per_s: progress.ops_per_s.round() as u64,
            errors: progress.errors,
            p50_us: progress.p50_us,
            p99_us: progress.p99_us,
            up,
            nodes: self.nodes.len(),
            hints: self.hints().await,
        }));
        Ok(())
    }

    async fn compare(
        &self,
        found: &Verification,
        acked_writes: u64,
        keys: u64,
        errors: u64,
    ) -> Result<Checked, Failure> {
        let until = now() + EQUAL_WITHIN;
        let (digests, equal) = loop {
            let mut digests = Vec::new();
            for node in &self.nodes {
                let digest = node.digest(BUCKET).await?;
                digests.push(NodeDigest {
                    node: node.name.clone(),
                    keys: digest.keys,
                    digest: digest.digest,
                });
            }
            let first = (digests[0].keys, digests[0].digest.clone());
            let equal = digests.iter().all(|d| (d.keys, &d.digest) == (first.0, &first.1));
            if equal || now() > until {
                break (digests, equal);
            }
            sleep(PAUSE).await;
        };
        Ok(Checked {
            acked_writes,
            keys,
            errors,
            lost: found.lost + found.damaged + found.unread,
            stale: found.stale,
            resurrected: found.resurrected,
            replicas_equal: equal,
            digests,
            passed: found.is_clean() && equal,
        })
    }
}
