//! Ten times what three nodes can take, with little memory, and how soon they are themselves again.
//!
//! Some clients keep their nodes busy all the time, and what they get done each second is what is compared:
//! before, while others send ten times as much without waiting for answers, and afterwards.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{fmt, io, process};

use anyhow::{Context, bail};
use bytes::Bytes;
use starling_protocol::Level;
use tokio::time::{MissedTickBehavior, interval};

use super::cores::Cores;
use super::memory_limit::MemoryLimit;
use crate::cluster::Cluster;
use crate::pipeline::{Fates, Pace, Pipeline, Puts};
use crate::session::Session;

const BUCKET: &str = "bench.wave";
const NODES: u8 = 3;
const VALUE_BYTES: usize = 1024;
/// Keys of each connection: few, so that the files stay as they are, and compacting them costs the same before and after.
const KEYS: u64 = 1_000;
/// Puts that are unanswered at a time, of all steady clients together.
const STEADY_WINDOW: usize = 192;
/// Connections to each node that make the wave.
const WAVE_CONNECTIONS: u8 = 4;
/// How many times the sustainable rate the wave has.
const TIMES: f64 = 10.0;
/// Each node's memory, files it has cached among it: one that needs more is killed.
const MEMORY_MAX: u64 = 768 << 20;
/// Recovered is who does so much of what was sustainable.
const RECOVERED: f64 = 0.9;
const RECOVERED_WITHIN_S: usize = 10;
/// How long a node may work on a put: beyond it the outcome is unknown.
const BUDGET: Duration = Duration::from_secs(2);
/// When a node is given up that leaves puts unanswered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// How long each part takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Until caches and files are as they stay; not measured.
    pub warmup: usize,
    /// What is sustainable.
    pub before: usize,
    /// Ten times as much.
    pub wave: usize,
    /// Until it must be as before.
    pub after: usize,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct OverloadFigures {
    /// Puts that the steady clients had acknowledged in the median second before the wave.
    sustainable_per_s: f64,
    /// The same in each second of the wave.
    during: Vec<f64>,
    /// The same in each second after the wave.
    after: Vec<f64>,
    wave_s: usize,
    wave: Fates,
    /// The most bytes that any node ever had resident.
    resident_peak: u64,
    /// Keys that were read back, and those that were not there.
    read_back: usize,
    lost: usize,
}

/// Measures it. `observe` sees what begins.
///
/// # Errors
/// A node ended or left puts unanswered.
pub async fn measure_overload(
    parts: Parts,
    cores: Option<Cores>,
    mut observe: impl FnMut(&str),
) -> anyhow::Result<OverloadFigures> {
    // Dropped after the cluster.
    let limits: Result<Vec<_>, _> = (1..=NODES)
        .map(|number| {
            MemoryLimit::new(&format!("starling-bench-{}-{number}", process::id()), MEMORY_MAX)
        })
        .collect();
    let cluster =
        Cluster::builder().nodes(NODES).keyspace("bench", NODES).lww_bucket("bench", "wave");
    let mut cluster = cluster.prepare();
    if let Some(cores) = cores {
        cores.be_a_node();
    }
    cluster.start().await;
    if let Some(cores) = cores {
        cores.be_a_client();
    }
    let unlimited = hold(&limits, &mut cluster);
    if let Err(why) = &unlimited {
        observe(&format!("overload: memory is not limited here, only measured ({why})"));
    }
    cluster.wait_until_up(usize::from(NODES), crate::cluster::READY_WITHIN).await;
    observe("overload: what is sustainable ...");
    let window = Pace::Window(STEADY_WINDOW / usize::from(NODES));
    let steady = pipelines(&mut cluster, "steady", 1, window).await;
    seconds(&steady, parts.warmup).await;
    let mut before = seconds(&steady, parts.before).await;
    before.sort_by(f64::total_cmp);
    let sustainable_per_s = before[before.len() / 2];

    observe("overload: ten times that ...");
    let connections = f64::from(NODES) * f64::from(WAVE_CONNECTIONS);
    let pace = Pace::PerSecond(sustainable_per_s * TIMES / connections);
    let wave = pipelines(&mut cluster, "wave", WAVE_CONNECTIONS, pace).await;
    let during = seconds(&steady, parts.wave).await;
    let subsiding = tokio::spawn(finish(wave));
    observe("overload: afterwards ...");
    let after = seconds(&steady, parts.after).await;
    let (wave, mut acknowledged) = subsiding.await??;
    acknowledged.extend(finish(steady).await?.1);

    observe("overload: reading back ...");
    let (mut read_back, mut lost) = (0, 0);
    let mut session = Session::open(cluster.node(1), BUCKET).await;
    for key in &acknowledged {
        let found = session.get(key, Level::Quorum, None).await;
        let found = found.with_context(|| format!("{key} after the wave"))?;
        read_back += 1;
        lost += usize::from(found.siblings.is_empty());
    }
    let peaks = cluster.nodes().iter().map(|node| node.resident_bytes_peak());
    let resident_peak = peaks.max().unwrap_or(0);
    let wave_s = parts.wave;
    Ok(OverloadFigures {
        sustainable_per_s,
        during,
        after,
        wave_s,
        wave,
        resident_peak,
        read_back,
        lost,
    })
}

fn hold(limits: &io::Result<Vec<MemoryLimit>>, cluster: &mut Cluster) -> Result<(), String> {
    let limits = limits.as_ref().map_err(ToString::to_string)?;
    for (limit, node) in limits.iter().zip(cluster.nodes()) {
        let process = node.process_id().ok_or("a node has ended")?;
        limit.hold(process).map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn pipelines(
    cluster: &mut Cluster,
    who: &str,
    each: u8,
    pace: Pace,
) -> Vec<(Puts, Pipeline)> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut pipelines = Vec::new();
    for number in 1..=NODES {
        for connection in 0..each {
            let prefix = format!("{who}-{number}-{connection}");
            let value = value.clone();
            let puts = Puts { prefix, keys: KEYS, value, pace, budget: BUDGET };
            let session = Session::open(cluster.node(number), BUCKET).await;
            pipelines.push((puts.clone(), Pipeline::start(session, puts)));
        }
    }
    pipelines
}

/// What all together had acknowledged in each of the next seconds.
async fn seconds(pipelines: &[(Puts, Pipeline)], count: usize) -> Vec<f64> {
    let total = || pipelines.iter().map(|(_, pipeline)| pipeline.acknowledged()).sum::<usize>();
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut at, mut done) = (ticks.tick().await, total());
    let mut rates = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        let (since, had) = (at, done);
        (at, done) = (starling_node::time::now(), total());
        rates.push((done - had) as f64 / (at - since).as_secs_f64());
    }
    rates
}

/// Sums up, and the keys that were acknowledged.
async fn finish(pipelines: Vec<(Puts, Pipeline)>) -> anyhow::Result<(Fates, BTreeSet<String>)> {
    let (mut all, mut keys) = (Fates::default(), BTreeSet::new());
    pipelines.iter().for_each(|(_, pipeline)| pipeline.stop());
    for (puts, pipeline) in pipelines {
        let fates = match pipeline.finish(ANSWERED_WITHIN).await {
            Ok(fates) => fates,
            Err(why) => bail!("{}: {why}", puts.prefix),
        };
        keys.extend(fates.acknowledged.iter().map(|number| puts.key(*number)));
        all.join(fates);
    }
    Ok((all, keys))
}

impl OverloadFigures {
    /// The second after the wave, from 1, in which the cluster was itself again.
    fn recovered_in(&self) -> Option<usize> {
        let enough = self.sustainable_per_s * RECOVERED;
        self.after.iter().position(|rate| *rate >= enough).map(|at| at + 1)
    }
}

impl fmt::Display for OverloadFigures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sustainable_per_s, wave, wave_s, .. } = self;
        let per_s = |count: usize| count as f64 / *wave_s as f64;
        let shares = |rates: &[f64]| {
            let shares =
                rates.iter().map(|rate| format!("{:.0}%", rate / sustainable_per_s * 100.0));
            shares.collect::<Vec<_>>().join(" ")
        };
        let line = |out: &mut fmt::Formatter<'_>, what: &str, figure: String| {
            writeln!(out, "{what:<50} {figure}")
        };
        writeln!(
            out,
            "overload: {NODES} nodes, RF {NODES}, QUORUM, values of {VALUE_BYTES} bytes; \
             each node may have {} MB of memory",
            MEMORY_MAX / 1_000_000
        )?;
        let what = format!("sustainable, {STEADY_WINDOW} puts at a time");
        line(out, &what, format!("{sustainable_per_s:.0}/s"))?;
        let offered = sustainable_per_s * TIMES;
        let what = format!("a wave of {wave_s} s, sent whatever is answered");
        let sent = per_s(usize::try_from(wave.sent).unwrap_or(usize::MAX));
        line(out, &what, format!("{offered:.0}/s due, {sent:.0}/s taken by the sockets"))?;
        line(out, "  acknowledged", format!("{:.0}/s", per_s(wave.acknowledged.len())))?;
        let mut after = wave.refused_after_us.clone();
        after.sort_unstable();
        let quantile = |share: f64| {
            let at = (after.len() as f64 * share) as usize;
            after.get(at).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let refused = per_s(after.len());
        let (median, p99) = (quantile(0.5), quantile(0.99));
        let early = format!("{refused:.0}/s, after {median:.0} ms (p99 {p99:.0} ms)");
        line(out, "  refused: Overloaded", early)?;
        line(out, "  unknown: Timeout", format!("{}", wave.unknown))?;
        line(out, "  anything else", format!("{}", wave.other))?;
        line(out, "the steady clients meanwhile, second by second", shares(&self.during))?;
        line(out, "the steady clients afterwards", shares(&self.after))?;
        let verdict = match self.recovered_in() {
            Some(second) if second <= RECOVERED_WITHIN_S => format!("in second {second}  met"),
            Some(second) => format!("in second {second}  MISSED"),
            None => "never  MISSED".to_owned(),
        };
        let what = format!("90% of the sustainable rate within {RECOVERED_WITHIN_S} s");
        line(out, &what, verdict)?;
        line(out, "largest node, peak", format!("{:.0} MB", self.resident_peak as f64 / 1e6))?;
        let lost = format!("{} of {} lost", self.lost, self.read_back);
        line(out, "keys of acknowledged puts read back", lost)
    }
}
