//! What a configuration needs beyond itself to start a new cluster: its secret can be read, and its seeds are enough
//! for its replicas. For whoever asks before starting; the start itself meets the same further on.
//!
//! It looks at one file that the configuration names. The data directory, which may belong to a cluster that was
//! founded otherwise, it leaves alone.

use std::fs;
use std::ops::Range;
use std::path::Path;

use starling_ring::{Keyspace, ReplicationStrategy};

use super::error::ConfigError;
use super::source::{Layers, Overrides, Source};
use super::{Config, resolve};

impl Config {
    /// [`Config::load`], and whether a new cluster can be founded with what it names.
    ///
    /// # Errors
    /// As [`Config::load`]; with the place of `secret_file` when that cannot be used, and that of the replication of
    /// a keyspace when there are fewer seeds.
    pub fn check(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let layers = Layers::read(Some((path, &text)), overrides)?;
        let config = resolve::resolve(&resolve::defaults(), &layers)?;
        config.check_secret(&layers)?;
        config.check_replication(&layers)?;
        Ok(config)
    }

    /// A datacenter that is to have copies, and is not this node's.
    fn datacenter_without<'a>(&self, strategy: &'a ReplicationStrategy) -> Option<&'a str> {
        let ReplicationStrategy::NetworkTopology { datacenters } = strategy else { return None };
        datacenters.keys().map(String::as_str).find(|datacenter| *datacenter != self.datacenter)
    }

    fn check_secret(&self, layers: &Layers) -> Result<(), ConfigError> {
        let Err(error) = self.secret() else { return Ok(()) };
        let found = layers.find(|written| &written.secret_file);
        let found = found.expect("there is no secret file by default, so some layer names it");
        Err(ConfigError::secret(found.source, found.span(), &error))
    }

    /// The cluster is its seeds: where they are too few, no later node makes up for it.
    fn check_replication(&self, layers: &Layers) -> Result<(), ConfigError> {
        let seeds = self.seeds.len();
        for Keyspace { name, strategy, .. } in &self.keyspaces {
            if let (1, Some(datacenter)) = (seeds, self.datacenter_without(strategy)) {
                let (source, span) = layers.replication(name);
                return Err(ConfigError::conflict(
                    source,
                    span,
                    format!(
                        "`keyspaces.{name}.replication` needs nodes in {datacenter:?}, where none is: the cluster cannot be created"
                    ),
                    Some(format!("copies in {:?}, where the only seed is", self.datacenter)),
                    "name all nodes in seeds, the same on each, or correct the datacenter"
                        .to_owned(),
                ));
            }
            // Of datacenters it is not known here which seeds are there, only that no seed is in two.
            let wanted = strategy.replication_factor();
            if usize::from(wanted) <= seeds {
                continue;
            }
            let (source, span) = layers.replication(name);
            return Err(ConfigError::conflict(
                source,
                span,
                format!(
                    "`keyspaces.{name}.replication` needs {wanted} nodes, `seeds` names {seeds}: the cluster cannot be created"
                ),
                Some(format!(
                    "no more copies than seeds, which are all first members: at most {seeds}"
                )),
                "name all nodes in seeds, the same on each, or keep fewer copies".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Layers {
    /// Where the replication of a keyspace was written.
    fn replication(&self, keyspace: &str) -> (&Source, Option<Range<usize>>) {
        let written = self.layers.iter().find_map(|layer| {
            let mut keyspaces = layer.written.keyspaces.iter();
            let (_, written) = keyspaces.find(|(name, _)| name.get_ref() == keyspace)?;
            let span = written.replication.as_ref()?.span();
            let in_file = matches!(layer.source, Source::File { .. });
            Some((&layer.source, in_file.then_some(span)))
        });
        written.expect("there is no keyspace by default, so some layer says its replication")
    }
}
