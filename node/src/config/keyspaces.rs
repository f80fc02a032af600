//! What is meant by `[keyspaces.NAME]`, over all layers.
//!
//! Every node of a cluster must come to the same result here. Whether a keyspace wants more copies
//! than there are nodes is decided where the cluster is created.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use starling_ring::{Keyspace, ReplicationStrategy};
use toml::Spanned;

use super::error::ConfigError;
use super::file::WrittenKeyspace;
use super::resolve::{NAME_LEN_MAX, is_name, known};
use super::source::{Layers, Source};
use super::value::Replication;

const COPIES: RangeInclusive<u8> = 1..=32;

/// The keyspaces of all layers, where a stronger layer wins key by key.
pub(super) fn keyspaces(layers: &Layers, base: &[Keyspace]) -> Result<Vec<Keyspace>, ConfigError> {
    let mut written: BTreeMap<&str, Vec<Named<'_>>> = BTreeMap::new();
    for layer in &layers.layers {
        for (name, keyspace) in &layer.written.keyspaces {
            let named = Named { source: &layer.source, name, keyspace };
            written.entry(name.get_ref()).or_default().push(named);
        }
    }
    let mut keyspaces: BTreeMap<String, Keyspace> =
        base.iter().map(|keyspace| (keyspace.name.clone(), keyspace.clone())).collect();
    for (name, layers) in written {
        let before = keyspaces.get(name);
        let keyspace = keyspace(name, &layers, before)?;
        keyspaces.insert(name.to_owned(), keyspace);
    }
    Ok(keyspaces.into_values().collect())
}

/// A keyspace as one layer has it.
#[derive(Clone, Copy)]
struct Named<'a> {
    source: &'a Source,
    name: &'a Spanned<String>,
    keyspace: &'a WrittenKeyspace,
}

impl Named<'_> {
    fn wrong_name(&self, what: &str, name: &Spanned<String>) -> ConfigError {
        let span = matches!(self.source, Source::File { .. }).then(|| name.span());
        ConfigError::conflict(
            self.source,
            span,
            format!("`{}` cannot be the name of a {what}", name.get_ref()),
            Some(format!("1 to {NAME_LEN_MAX} letters, digits, '_' or '-'")),
            "choose another name".to_owned(),
        )
    }
}

fn keyspace(
    name: &str,
    layers: &[Named<'_>],
    before: Option<&Keyspace>,
) -> Result<Keyspace, ConfigError> {
    let mut buckets = before.map_or_else(BTreeMap::new, |keyspace| keyspace.buckets.clone());
    for named in layers.iter().rev() {
        if !is_name(name) {
            return Err(named.wrong_name("keyspace", named.name));
        }
        for (bucket, mode) in &named.keyspace.buckets {
            if !is_name(bucket.get_ref()) {
                return Err(named.wrong_name("bucket", bucket));
            }
            buckets.insert(bucket.get_ref().clone(), *mode);
        }
    }
    let replication = layers.iter().find_map(|named| {
        named.keyspace.replication.as_ref().map(|replication| (named, replication))
    });
    let strategy = match (replication, before) {
        (Some((named, replication)), _) => strategy(name, named, replication)?,
        (None, Some(before)) => before.strategy.clone(),
        (None, None) => {
            let key = known("keyspaces.*.replication");
            let place = layers.last().map_or_else(String::new, |named| {
                let in_file = matches!(named.source, Source::File { .. });
                named.source.place(in_file.then(|| named.name.span()).as_ref())
            });
            return Err(ConfigError::missing(place, &format!("keyspaces.{name}.replication"), key));
        }
    };
    let partitioner = layers
        .iter()
        .find_map(|named| named.keyspace.partitioner.as_ref().map(|p| *p.get_ref()))
        .or(before.map(|before| before.partitioner))
        .unwrap_or_default();
    Ok(Keyspace { name: name.to_owned(), strategy, partitioner, buckets })
}

fn strategy(
    name: &str,
    named: &Named<'_>,
    replication: &Spanned<Replication>,
) -> Result<ReplicationStrategy, ConfigError> {
    let Replication(strategy) = replication.get_ref();
    let fits = match strategy {
        ReplicationStrategy::Simple { replication_factor } => COPIES.contains(replication_factor),
        ReplicationStrategy::NetworkTopology { datacenters } => {
            !datacenters.is_empty()
                && datacenters.iter().all(|(name, copies)| is_name(name) && COPIES.contains(copies))
        }
    };
    if fits {
        return Ok(strategy.clone());
    }
    let span = matches!(named.source, Source::File { .. }).then(|| replication.span());
    let path = format!("keyspaces.{name}.replication");
    Err(ConfigError::value(named.source, known("keyspaces.*.replication"), &path, span))
}
