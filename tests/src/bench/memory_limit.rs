//! A bound on the memory of one process, as containers and service managers set it: a control group of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where version 2 and version 1 of control groups are, and how they call the bound.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// See the module. It is removed when it is dropped, which must be after the process has ended.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// Makes a group that may have `bytes`.
    ///
    /// # Errors
    /// The machine has none, or does not let us.
    pub fn new(name: &str, bytes: u64) -> io::Result<MemoryLimit> {
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for (hierarchy, bound) in HIERARCHIES {
            match make(&Path::new(hierarchy).join(name), bound, bytes) {
                Ok(limit) => return Ok(limit),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Holds for a process from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn hold(&self, process: u32) -> io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), process.to_string())
    }
}

fn make(group: &Path, bound: &str, bytes: u64) -> io::Result<MemoryLimit> {
    fs::create_dir(group)?;
    let limit = MemoryLimit { group: group.to_owned() };
    if !group.join(bound).exists() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    fs::write(group.join(bound), bytes.to_string())?;
    Ok(limit)
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // What stays is an empty group.
        let _ = fs::remove_dir(&self.group);
    }
}
