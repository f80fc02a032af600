//! What is meant: every value found or defaulted, in range, and fitting the others.
//!
//! The result upholds what the node relies on and does not check again: this node is among its
//! seeds, nothing listens off loopback unasked, the largest value fits the bytes in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use starling_ring::Keyspace;

use super::error::ConfigError;
use super::file::{Maybe, Written};
use super::keys::{self, Key};
use super::keyspaces::keyspaces;
use super::source::{Found, Layers, Source};
use super::value::{Durability, Graces, LogFormat, LogLevel, Size, Span};
use super::{Config, Limits, Listen, Log, Timeouts};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Longest names, so that they fit a log line and a frame.
pub(super) const NAME_LEN_MAX: usize = 48;
/// What a request is charged beside its key and value: its header, its context, its task.
const REQUEST_EXTRA_BYTES: u64 = 64 * KIB;
const NO_KEYSPACE: &str =
    "no keyspace is declared: nothing can be stored, and none can be added later";
const SIZES: RangeInclusive<u64> = MIB..=(1 << 50);
const SPANS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// What holds where nothing is written. The seeds are empty: they must be written.
pub(super) fn defaults() -> Config {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Config {
        cluster_name: "starling".to_owned(),
        data_dir: PathBuf::from("data"),
        listen: Listen { native: at(9050), internode: at(7000), admin: at(9180) },
        datacenter: "dc1".to_owned(),
        rack: "rack1".to_owned(),
        seeds: BTreeSet::new(),
        slot_bits: 12,
        secret_file: None,
        insecure: false,
        durability: Durability::Group,
        block_cache_bytes: 64 * MIB,
        memtable_bytes: 32 * MIB,
        compaction_bytes_max: 64 * MIB,
        hints_bytes_max: GIB,
        disk_reserve_bytes: 256 * MIB,
        repair_bytes_max: 32 * MIB,
        gc_grace: BTreeMap::new(),
        worker_threads: thread::available_parallelism().map_or(1, usize::from),
        blocking_threads: 8,
        limits: Limits {
            key_bytes_max: 65_535,
            value_bytes_max: 8 << 20,
            connections_max: 1024,
            in_flight_bytes_max: 64 * MIB,
            link_bytes_max: 32 * MIB,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            read: Duration::from_secs(2),
            write: Duration::from_secs(2),
        },
        keyspaces: Vec::new(),
        log: Log { level: LogLevel::Info, format: LogFormat::Text },
        warnings: Vec::new(),
    }
}

/// Lays `layers` over `base` and checks the whole.
pub(super) fn resolve(base: &Config, layers: &Layers) -> Result<Config, ConfigError> {
    let pick = Pick { layers };
    let name = |text: &String| is_name(text);
    let listen = listen(pick, base.listen)?;
    let (layers, named) = (pick.layers, |path: &PathBuf| !path.as_os_str().is_empty());
    let secret_file = pick.one("secret_file", |w| &w.secret_file, named)?;
    let threads = |count: &usize| (1..=256).contains(count);
    let bits = |bits: &u8| (4..=16).contains(bits);
    let (cache, memtable) = (base.block_cache_bytes, base.memtable_bytes);
    let (hints, repair) = (base.hints_bytes_max, base.repair_bytes_max);
    let keyspaces = keyspaces(layers, &base.keyspaces)?;
    let mut warnings = layers.warnings.clone();
    if keyspaces.is_empty() {
        warnings.push(NO_KEYSPACE.to_owned());
    }
    Ok(Config {
        cluster_name: pick.or("cluster_name", |w| &w.cluster_name, name, &base.cluster_name)?,
        data_dir: pick.or("data_dir", |w| &w.data_dir, named, &base.data_dir)?,
        datacenter: pick.or("datacenter", |w| &w.datacenter, name, &base.datacenter)?,
        rack: pick.or("rack", |w| &w.rack, name, &base.rack)?,
        seeds: seeds(pick, base, listen.internode)?,
        secret_file: secret_file.or_else(|| base.secret_file.clone()),
        insecure: pick.or("insecure", |w| &w.insecure, |_| true, &base.insecure)?,
        slot_bits: pick.or("slot_bits", |w| &w.slot_bits, bits, &base.slot_bits)?,
        durability: pick.or(
            "durability",
            |w| &w.durability,
            durability_in_range,
            &base.durability,
        )?,
        block_cache_bytes: pick.size("block_cache", |w| &w.block_cache, &SIZES, cache)?,
        memtable_bytes: pick.size("memtable", |w| &w.memtable, &SIZES, memtable)?,
        compaction_bytes_max: pick.size(
            "compaction_max",
            |w| &w.compaction_max,
            &SIZES,
            base.compaction_bytes_max,
        )?,
        hints_bytes_max: pick.size("hints_max", |w| &w.hints_max, &SIZES, hints)?,
        disk_reserve_bytes: pick.size(
            "disk_reserve",
            |w| &w.disk_reserve,
            &(0..=1 << 50),
            base.disk_reserve_bytes,
        )?,
        repair_bytes_max: pick.size("repair_max", |w| &w.repair_max, &(0..=1 << 50), repair)?,
        gc_grace: gc_grace(pick, base, &keyspaces)?,
        worker_threads: pick.or(
            "worker_threads",
            |w| &w.worker_threads,
            threads,
            &base.worker_threads,
        )?,
        blocking_threads: pick.or(
            "blocking_threads",
            |w| &w.blocking_threads,
            threads,
            &base.blocking_threads,
        )?,
        listen,
        limits: limits(pick, base.limits)?,
        timeouts: timeouts(pick, base.timeouts)?,
        log: log(pick, base.log)?,
        keyspaces,
        warnings,
    })
}

/// Finds values and refuses those out of range.
#[derive(Clone, Copy)]
struct Pick<'a> {
    layers: &'a Layers,
}

impl<'a> Pick<'a> {
    /// The strongest value, if there is one.
    fn one<T: Clone + 'a>(
        self,
        path: &'static str,
        field: impl Fn(&'a Written) -> &'a Maybe<T>,
        accepts: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, ConfigError> {
        match self.layers.find(field) {
            Some(found) if accepts(found.value) => Ok(Some(found.value.clone())),
            Some(found) => Err(ConfigError::value(found.source, known(path), path, found.span())),
            None => Ok(None),
        }
    }

    /// The strongest value, or `default`.
    fn or<T: Clone + 'a>(
        self,
        path: &'static str,
        field: impl Fn(&'a Written) -> &'a Maybe<T>,
        accepts: impl Fn(&T) -> bool,
        default: &T,
    ) -> Result<T, ConfigError> {
        Ok(self.one(path, field, accepts)?.unwrap_or_else(|| default.clone()))
    }

    fn size(
        self,
        path: &'static str,
        field: impl Fn(&'a Written) -> &'a Maybe<Size>,
        range: &RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        Ok(self.or(path, field, |size| range.contains(&size.0), &Size(default))?.0)
    }

    fn span(
        self,
        path: &'static str,
        field: impl Fn(&'a Written) -> &'a Maybe<Span>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        Ok(self.or(path, field, |span| SPANS.contains(&span.0), &Span(default))?.0)
    }
}

pub(super) fn known(path: &str) -> &'static Key {
    keys::KEYS.iter().find(|key| key.path == path).expect("the key is in the table of keys")
}

/// A value that does not fit the rest, where it was written or, when it was not, everywhere.
fn conflict<T>(
    layers: &Layers,
    found: Option<&Found<'_, T>>,
    problem: String,
    accepts: &str,
    advice: String,
) -> ConfigError {
    let accepts = Some(accepts.to_owned());
    match (found, layers.layers.last()) {
        (Some(found), _) => {
            ConfigError::conflict(found.source, found.span(), problem, accepts, advice)
        }
        (None, Some(layer)) => ConfigError::conflict(&layer.source, None, problem, accepts, advice),
        (None, None) => {
            let nowhere = Source::Flag { key: String::new(), value: String::new() };
            ConfigError::conflict(&nowhere, None, problem, accepts, advice)
        }
    }
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn durability_in_range(durability: &Durability) -> bool {
    match durability {
        Durability::Group => true,
        Durability::Periodic { interval } => (1..=60_000).contains(&interval.as_millis()),
    }
}

fn listen(pick: Pick<'_>, base: Listen) -> Result<Listen, ConfigError> {
    let port = |port: &u16| *port != 0;
    let reachable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let loopback = |at: &SocketAddr| at.ip().is_loopback() && at.port() != 0;
    let address = pick.or("listen.address", |w| &w.listen.address, reachable, &base.native.ip())?;
    let native =
        pick.or("listen.native_port", |w| &w.listen.native_port, port, &base.native.port())?;
    let internode = pick.or(
        "listen.internode_port",
        |w| &w.listen.internode_port,
        port,
        &base.internode.port(),
    )?;
    let admin = pick.or("listen.admin", |w| &w.listen.admin, loopback, &base.admin)?;
    let listen = Listen {
        native: SocketAddr::new(address, native),
        internode: SocketAddr::new(address, internode),
        admin,
    };
    if !address.is_loopback() && pick.one("insecure", |w| &w.insecure, |_| true)? != Some(true) {
        let found = pick.layers.find(|w| &w.listen.address);
        return Err(conflict(
            pick.layers,
            found.as_ref(),
            "`listen.address` is off loopback, where nothing is encrypted or authenticated yet".to_owned(),
            "an address of 127.0.0.0/8 or ::1, or any together with insecure = true",
            "write insecure = true if everybody who reaches this address may read and write everything".to_owned(),
        ));
    }
    if native == internode || [listen.native, listen.internode].contains(&admin) {
        let found = pick.layers.find(|w| &w.listen.native_port);
        return Err(conflict(
            pick.layers,
            found.as_ref(),
            format!("two of {}, {} and {admin} are the same", listen.native, listen.internode),
            "a port of its own for clients, for nodes and for admin",
            "change one of listen.native_port, listen.internode_port and listen.admin".to_owned(),
        ));
    }
    Ok(listen)
}

fn seeds(
    pick: Pick<'_>,
    base: &Config,
    me: SocketAddr,
) -> Result<BTreeSet<SocketAddr>, ConfigError> {
    let Some(found) = pick.layers.find(|w| &w.seeds) else {
        if base.seeds.is_empty() {
            let place =
                pick.layers.layers.last().map_or_else(String::new, |l| l.source.place(None));
            return Err(ConfigError::missing(place, "seeds", known("seeds")));
        }
        // A development node is its own cluster, wherever it was told to listen.
        return Ok(BTreeSet::from([me]));
    };
    let mut seeds = BTreeSet::new();
    for seed in found.value {
        if !seeds.insert(*seed) {
            return Err(conflict(
                pick.layers,
                Some(&found),
                format!("`seeds` names {seed} twice"),
                known("seeds").accepts,
                "name every node once".to_owned(),
            ));
        }
    }
    if !seeds.contains(&me) {
        return Err(conflict(
            pick.layers,
            Some(&found),
            format!("`seeds` does not name this node, {me}"),
            &format!("a list with {me}, which is listen.address with listen.internode_port"),
            format!("add \"{me}\", or correct listen.address or listen.internode_port"),
        ));
    }
    Ok(seeds)
}

fn gc_grace(
    pick: Pick<'_>,
    base: &Config,
    keyspaces: &[Keyspace],
) -> Result<BTreeMap<String, Duration>, ConfigError> {
    let is_bucket = |name: &String| {
        name.split_once('.').is_some_and(|(keyspace, bucket)| is_name(keyspace) && is_name(bucket))
    };
    let accepts = |graces: &Graces| graces.0.keys().all(is_bucket);
    let graces = pick.one("gc_grace", |w| &w.gc_grace, accepts)?;
    let names: Vec<&str> = keyspaces.iter().map(|keyspace| keyspace.name.as_str()).collect();
    let is_declared = |bucket: &str| {
        bucket.split_once('.').is_some_and(|(keyspace, _)| names.contains(&keyspace))
    };
    let mut named = graces.iter().flat_map(|graces| graces.0.keys());
    if let Some(bucket) = named.find(|bucket| !is_declared(bucket)) {
        let found = pick.layers.find(|w| &w.gc_grace);
        return Err(conflict(
            pick.layers,
            found.as_ref(),
            format!("`gc_grace` names {bucket:?}, whose keyspace is not declared"),
            &format!(
                "buckets of: {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
            "correct the name, or declare the keyspace".to_owned(),
        ));
    }
    Ok(graces.map_or_else(|| base.gc_grace.clone(), |graces| graces.0))
}

fn limits(pick: Pick<'_>, base: Limits) -> Result<Limits, ConfigError> {
    let (key, value) = (base.key_bytes_max.into(), base.value_bytes_max.into());
    let (in_flight, link) = (base.in_flight_bytes_max, base.link_bytes_max);
    let bytes = |bytes: u64| u32::try_from(bytes).expect("the ranges below fit 32 bits");
    let clients = |count: &usize| (1..=100_000).contains(count);
    let limits = Limits {
        key_bytes_max: bytes(pick.size(
            "limits.key_max",
            |w| &w.limits.key_max,
            &(1..=65_535),
            key,
        )?),
        value_bytes_max: bytes(pick.size(
            "limits.value_max",
            |w| &w.limits.value_max,
            &(KIB..=15 * MIB),
            value,
        )?),
        connections_max: pick.or(
            "limits.connections_max",
            |w| &w.limits.connections_max,
            clients,
            &base.connections_max,
        )?,
        in_flight_bytes_max: pick.size(
            "limits.in_flight_max",
            |w| &w.limits.in_flight_max,
            &SIZES,
            in_flight,
        )?,
        link_bytes_max: pick.size("limits.link_max", |w| &w.limits.link_max, &SIZES, link)?,
    };
    let payload = u64::from(limits.value_bytes_max) + u64::from(limits.key_bytes_max);
    let one_request = payload + REQUEST_EXTRA_BYTES;
    if limits.in_flight_bytes_max < one_request {
        let found = pick.layers.find(|w| &w.limits.in_flight_max);
        return Err(conflict(
            pick.layers,
            found.as_ref(),
            "`limits.in_flight_max` is less than one request of the largest key and value"
                .to_owned(),
            &format!("at least {one_request}B"),
            "raise limits.in_flight_max or lower limits.value_max".to_owned(),
        ));
    }
    Ok(limits)
}

fn timeouts(pick: Pick<'_>, base: Timeouts) -> Result<Timeouts, ConfigError> {
    Ok(Timeouts {
        connect: pick.span("timeouts.connect", |w| &w.timeouts.connect, base.connect)?,
        read: pick.span("timeouts.read", |w| &w.timeouts.read, base.read)?,
        write: pick.span("timeouts.write", |w| &w.timeouts.write, base.write)?,
    })
}

fn log(pick: Pick<'_>, base: Log) -> Result<Log, ConfigError> {
    Ok(Log {
        level: pick.or("log.level", |w| &w.log.level, |_| true, &base.level)?,
        format: pick.or("log.format", |w| &w.log.format, |_| true, &base.format)?,
    })
}
