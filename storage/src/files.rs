//! Small named records beside the store: identity, lease, high-water mark.
//!
//! Invariant: when a write returns, its bytes survive a power cut; [`Files::replace`] is seen whole or not at all.
//!
//! The store's own files are not these, and nothing large belongs here. In simulation the records live in memory and always survive, as
//! they would on a disk that keeps its promises.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// A directory of small durable records.
pub trait Files: Send + Sync {
    /// The whole record, or `None` if it was never written.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the record atomically and durably. Blocks.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Overwrites a part of the record in place and durably, creating it as needed; a power cut may tear it. Blocks.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Where the records are, for messages.
    fn place(&self) -> PathBuf;
}

/// Records as files of one directory.
#[derive(Debug)]
pub struct DiskFiles {
    directory: PathBuf,
    /// Files that are overwritten in place stay open: a lease is extended ten times a second.
    open: Mutex<BTreeMap<String, File>>,
}

impl DiskFiles {
    /// Uses `directory`, creating it (and what is above it) if it does not exist.
    pub fn open(directory: &Path) -> io::Result<DiskFiles> {
        fs::create_dir_all(directory)?;
        Ok(DiskFiles { directory: directory.to_owned(), open: Mutex::new(BTreeMap::new()) })
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn open_in_place(&self, name: &str) -> io::Result<File> {
        let path = self.directory.join(name);
        let is_new = !path.try_exists()?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if is_new {
            self.sync_directory()?;
        }
        Ok(file)
    }
}

impl Files for DiskFiles {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.directory.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.directory.join(format!("{name}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, self.directory.join(name))?;
        // The rename itself is only durable once the directory is.
        self.sync_directory()
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        if !open.contains_key(name) {
            open.insert(name.to_owned(), self.open_in_place(name)?);
        }
        let file = &open[name];
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    fn place(&self) -> PathBuf {
        self.directory.clone()
    }
}

/// Records in memory, for the simulator and tests.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    records: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryFiles {
    /// No records yet.
    pub fn new() -> MemoryFiles {
        MemoryFiles::default()
    }
}

impl Files for MemoryFiles {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.records.lock().get(name).cloned())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.records.lock().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut records = self.records.lock();
        let record = records.entry(name.to_owned()).or_default();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        if record.len() < start + bytes.len() {
            record.resize(start + bytes.len(), 0);
        }
        record[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn place(&self) -> PathBuf {
        PathBuf::from("(memory)")
    }
}

/// Offsets of a number's two copies: apart by more than a disk tears at once.
const COPY_OFFSETS: [u64; 2] = [0, 4096];
const COPY_BYTES: usize = 20;

/// One u64 in a record of its own, replaced in place without touching the file system's journal.
///
/// Two copies are written in turn, each with a version and a checksum, so that a torn write leaves the previous number.
pub struct DurableNumber {
    name: &'static str,
    version: u64,
}

impl DurableNumber {
    /// Opens the record `name` and reads its number, `None` if it was never written.
    pub fn open(files: &dyn Files, name: &'static str) -> io::Result<(DurableNumber, Option<u64>)> {
        let record = files.read(name)?.unwrap_or_default();
        let newest =
            COPY_OFFSETS.iter().filter_map(|offset| decode_copy(&record, *offset as usize)).max();
        let number = DurableNumber { name, version: newest.map_or(0, |(version, _)| version) };
        Ok((number, newest.map(|(_, value)| value)))
    }

    /// Replaces the number durably. Blocks.
    pub fn write(&mut self, files: &dyn Files, value: u64) -> io::Result<()> {
        let version = self.version + 1;
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(&version.to_le_bytes());
        copy[8..16].copy_from_slice(&value.to_le_bytes());
        let checksum = crc32c::crc32c(&copy[..16]);
        copy[16..].copy_from_slice(&checksum.to_le_bytes());
        files.write_at(self.name, COPY_OFFSETS[version as usize % 2], &copy)?;
        // Only now: after a failure the other copy is the only good one, and the next attempt must not touch it.
        self.version = version;
        Ok(())
    }
}

/// (version, value) of the copy at `offset`, if it is whole.
fn decode_copy(record: &[u8], offset: usize) -> Option<(u64, u64)> {
    let copy = record.get(offset..offset + COPY_BYTES)?;
    let (body, checksum) = copy.split_at(16);
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return None;
    }
    let version = u64::from_le_bytes(body[..8].try_into().ok()?);
    let value = u64::from_le_bytes(body[8..].try_into().ok()?);
    Some((version, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::{COPY_OFFSETS, DurableNumber, Files, MemoryFiles};

    /// Every write in place is torn, and fails.
    struct Failing(MemoryFiles);

    impl Files for Failing {
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.read(name)
        }

        fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.replace(name, bytes)
        }

        fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(name, offset, &bytes[..12])?;
            Err(io::Error::other("torn"))
        }

        fn place(&self) -> PathBuf {
            self.0.place()
        }
    }

    #[test]
    fn writes_that_fail_again_and_again_leave_the_previous_number() {
        let files = MemoryFiles::new();
        let (mut number, _) = DurableNumber::open(&files, "N").unwrap();
        number.write(&files, 7).unwrap();
        number.write(&files, 5).unwrap();
        let failing = Failing(files);
        for attempt in 0..3 {
            assert!(number.write(&failing, 9).is_err());
            let found = DurableNumber::open(&failing, "N").unwrap().1;
            assert_eq!(found, Some(5), "after attempt {attempt}");
        }
    }

    #[test]
    fn a_torn_copy_leaves_the_previous_number() {
        let files = MemoryFiles::new();
        let (mut number, none) = DurableNumber::open(&files, "N").unwrap();
        assert_eq!(none, None);
        number.write(&files, 7).unwrap();
        number.write(&files, 5).unwrap();
        assert_eq!(DurableNumber::open(&files, "N").unwrap().1, Some(5));
        files.write_at("N", COPY_OFFSETS[0] + 9, &[0xff]).unwrap();
        assert_eq!(DurableNumber::open(&files, "N").unwrap().1, Some(7));
    }
}
