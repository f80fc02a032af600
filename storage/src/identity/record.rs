//! The identity's record and its text form on disk.
//!
//! Invariant: a record that decodes was written whole by [`IdentityRecord::encode`]; anything else is refused, never guessed at.
//!
//! A person may read the file but should not edit it, hence the checksum.

use std::fmt::Write;

use starling_ring::HostId;
use uuid::Uuid;

use crate::values::Actor;

const TITLE: &str = "starling identity 1";

/// What a replica remembers about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The node's name for life.
    pub host_id: HostId,
    /// Random bytes of the first start: they tell two data directories with one copied host id apart, and feed the genesis.
    pub nonce: [u8; 32],
    /// Who mints dots now.
    pub actor: Actor,
    /// Counts starts; gossip prefers the larger.
    pub incarnation: u64,
    /// The machine's boot at the last start: unsynced writes survive a killed process, but not a reboot.
    pub boot_id: String,
    /// The cluster this directory belongs to, once it does.
    pub cluster_id: Option<[u8; 16]>,
    /// Whether the last run ended in good order.
    pub clean: bool,
}

impl IdentityRecord {
    /// The record as lines of text, the last of them a checksum of the others.
    pub fn encode(&self) -> Vec<u8> {
        let cluster = self.cluster_id.map_or("-".to_owned(), |id| hex(&id));
        let mut text = format!(
            "{TITLE}\nhost_id {}\nnonce {}\nactor {:016x}\nincarnation {}\nboot_id {}\ncluster_id {}\nclean {}\n",
            self.host_id.0,
            hex(&self.nonce),
            self.actor.0,
            self.incarnation,
            self.boot_id,
            cluster,
            self.clean,
        );
        let checksum = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("crc32c {checksum:08x}\n"));
        text.into_bytes()
    }

    /// Reads what [`IdentityRecord::encode`] wrote; the error says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<IdentityRecord, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (body, checksum) = text.rsplit_once("crc32c ").ok_or("it has no checksum")?;
        let checksum = u32::from_str_radix(checksum.trim_end(), 16)
            .map_err(|_| "its checksum is not a number")?;
        if checksum != crc32c::crc32c(body.as_bytes()) {
            return Err("its checksum does not match");
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err("it is of an unknown version");
        }
        let mut field = |name: &str| {
            let line = lines.next()?;
            line.strip_prefix(name)?.strip_prefix(' ')
        };
        let mut parse = || -> Option<IdentityRecord> {
            Some(IdentityRecord {
                host_id: HostId(Uuid::parse_str(field("host_id")?).ok()?),
                nonce: unhex(field("nonce")?)?,
                actor: Actor(u64::from_str_radix(field("actor")?, 16).ok()?),
                incarnation: field("incarnation")?.parse().ok()?,
                boot_id: field("boot_id")?.to_owned(),
                cluster_id: match field("cluster_id")? {
                    "-" => None,
                    id => Some(unhex(id)?),
                },
                clean: field("clean")?.parse().ok()?,
            })
        };
        parse().ok_or("a field is missing or malformed")
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Actor, HostId, IdentityRecord, Uuid};

    fn record() -> IdentityRecord {
        IdentityRecord {
            host_id: HostId(Uuid::from_u128(77)),
            nonce: [9; 32],
            actor: Actor(u64::MAX - 3),
            incarnation: 12,
            boot_id: "b".to_owned(),
            cluster_id: Some([200; 16]),
            clean: true,
        }
    }

    #[test]
    fn survives_its_text_form() {
        let mut record = record();
        assert_eq!(IdentityRecord::decode(&record.encode()), Ok(record.clone()));
        record.cluster_id = None;
        assert_eq!(IdentityRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let whole = record().encode();
        for at in 0..whole.len() - 1 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(IdentityRecord::decode(&damaged).is_err(), "byte {at}");
        }
    }
}
