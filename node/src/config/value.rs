//! The values of keys as types: sizes, durations, and the enumerations.
//!
//! Each parses exactly what [`super::KEYS`] says it accepts. Ranges that depend on other keys are
//! checked in `resolve`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor, value};
use serde::{Deserialize, Serialize};
use starling_ring::ReplicationStrategy;

/// When a write counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After an fsync that all writes waiting for one share.
    Group,
    /// At once; an fsync follows within the interval, so a power cut may lose that much.
    Periodic {
        /// The time between two fsyncs.
        interval: Duration,
    },
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs somebody now.
    Error,
    /// What needs somebody soon.
    Warn,
    /// What happened to the node and the cluster.
    Info,
    /// What happened to connections.
    Debug,
    /// What happened to requests.
    Trace,
}

impl LogLevel {
    /// As it is written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Bytes, written `"64MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub u64);

/// A time, written `"500ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub Duration);

/// How long deletes are kept in some buckets: `{ "shop.sessions" = "10d" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Graces(pub BTreeMap<String, Duration>);

/// How many copies a keyspace keeps: `3`, or `{ dc1 = 3, dc2 = 2 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replication(pub ReplicationStrategy);

const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
const GRACES_S: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SPANS_MS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];

/// Splits `text` into a number and one of `units`, and multiplies; none when it is not that.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number = number.trim_end();
    number.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The value is not of the shape that the key accepts; the message comes from the table of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the accepted shape")]
pub(super) struct Shape;

impl FromStr for Size {
    type Err = Shape;

    fn from_str(text: &str) -> Result<Self, Shape> {
        scaled(text, &SIZES).map(Self).ok_or(Shape)
    }
}

impl FromStr for Span {
    type Err = Shape;

    fn from_str(text: &str) -> Result<Self, Shape> {
        scaled(text, &SPANS_MS).map(|ms| Self(Duration::from_millis(ms))).ok_or(Shape)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms > 0 && ms.is_multiple_of(1_000) {
            write!(f, "{}s", ms / 1_000)
        } else {
            write!(f, "{ms}ms")
        }
    }
}

macro_rules! from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
from_text!(Size, Span);

impl<'de> Deserialize<'de> for Graces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, String>::deserialize(deserializer)?;
        let graces = written.into_iter().map(|(bucket, grace)| {
            let seconds = scaled(&grace, &GRACES_S).ok_or_else(|| D::Error::custom(Shape))?;
            Ok((bucket, Duration::from_secs(seconds)))
        });
        Ok(Self(graces.collect::<Result<_, D::Error>>()?))
    }
}

impl fmt::Display for Graces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("{}");
        }
        let written = self.0.iter().map(|(bucket, grace)| {
            format!("{} = \"{}s\"", toml::Value::String(bucket.clone()), grace.as_secs())
        });
        write!(f, "{{ {} }}", written.collect::<Vec<_>>().join(", "))
    }
}

impl<'de> Deserialize<'de> for Replication {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Replication;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of copies or a table of datacenters")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Replication, E> {
                let replication_factor = u8::try_from(number).map_err(E::custom)?;
                Ok(Replication(ReplicationStrategy::Simple { replication_factor }))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Replication, E> {
                let replication_factor = u8::try_from(number).map_err(E::custom)?;
                Ok(Replication(ReplicationStrategy::Simple { replication_factor }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Replication, A::Error> {
                let datacenters = BTreeMap::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Replication(ReplicationStrategy::NetworkTopology { datacenters }))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Group,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            periodic_ms: u16,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Durability;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"group\" or { periodic_ms = N }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Durability, E> {
                Word::deserialize(text.into_deserializer()).map(|Word::Group| Durability::Group)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Durability, A::Error> {
                let table = Table::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Durability::Periodic {
                    interval: Duration::from_millis(u64::from(table.periodic_ms)),
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Size, Span};

    #[test]
    fn sizes_and_durations_need_a_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("65535B", Some(65_535)),
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("99999999999GiB", None),
            ("64MB", None),
            ("64", None),
            ("-1B", None),
            ("+1B", None),
            ("B", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Size>().ok(), bytes.map(Size), "{text:?}");
        }
        for (text, ms) in [
            ("500ms", Some(500)),
            ("2s", Some(2_000)),
            ("1m", Some(60_000)),
            ("2", None),
            ("s", None),
        ] {
            assert_eq!(
                text.parse::<Span>().ok(),
                ms.map(|ms| Span(Duration::from_millis(ms))),
                "{text:?}"
            );
        }
        for text in ["1GiB", "64MiB", "65535B", "3KiB"] {
            assert_eq!(text.parse::<Size>().expect("a size").to_string(), text);
        }
    }
}
