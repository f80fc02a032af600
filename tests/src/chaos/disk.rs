//! A small filesystem of its own for one node, which can be filled: an ext4 image behind a loop device.
//!
//! Invariant: nothing stays mounted when the process ends, however it ends. So it mounts only inside a
//! mount namespace of the process, which [`enter_namespace`] makes.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Several times what a node needs here; the image is sparse.
const IMAGE_BYTES: u64 = 256 << 20;
/// Set in the process that runs in the namespace.
const ENTERED: &str = "CHAOS_MOUNT_NAMESPACE";
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "private"];

/// Starts this program again in a mount namespace of its own, in place of this process. Returns where that
/// is done already, and where the machine does not let it: then there is no small filesystem.
pub fn enter_namespace() {
    if std::env::var_os(ENTERED).is_some()
        || run("unshare", &[&UNSHARE[..], &["true"]].concat()).is_err()
    {
        return;
    }
    let Ok(this) = std::env::current_exe() else { return };
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg(this).args(std::env::args_os().skip(1)).env(ENTERED, "1");
    // It returns only if it failed, which is as if it was not tried.
    let _ = again.exec();
}

/// See the module. It is unmounted when it is dropped; the image stays in its folder.
#[derive(Debug)]
pub(super) struct SmallDisk {
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// Makes an image beside the empty folder `at`, and mounts it there.
    ///
    /// # Errors
    /// What the machine lacks, in a few words.
    pub(super) fn mount(at: &Path) -> Result<SmallDisk, String> {
        if std::env::var_os(ENTERED).is_none() {
            return Err("no mount namespace of its own (unshare --mount fails)".to_owned());
        }
        let image = at.with_extension("ext4");
        let prepare = || {
            fs::create_dir_all(at)?;
            File::create(&image)?.set_len(IMAGE_BYTES)
        };
        prepare().map_err(|error| format!("{}: {error}", image.display()))?;
        let (image, folder) = (image.display().to_string(), at.display().to_string());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &folder])?;
        let disk = SmallDisk { mounted_at: at.to_owned() };
        // A data directory is empty when a node comes to it first.
        let emptied = fs::remove_dir(at.join("lost+found"));
        emptied.map_err(|error| format!("{folder}: {error}"))?;
        Ok(disk)
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// The file that takes it cannot be made.
    pub(super) fn fill(&self) -> io::Result<()> {
        let ballast = File::create(self.ballast())?;
        let mut length = 0;
        let space = statvfs(&self.mounted_at)?;
        let mut step = space.f_bavail * space.f_frsize;
        while step >= space.f_frsize {
            match fallocate(&ballast, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                // Some of what was free goes to the bookkeeping of the file.
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// The file that takes it cannot be removed.
    pub(super) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a node may still run on it; and it ends with the namespace at the latest.
        if let Err(error) = run("umount", &["--lazy", &self.mounted_at.display().to_string()]) {
            tracing::warn!(error, "the small filesystem is still mounted");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.map_err(|error| format!("{program}: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{program} fails: {}", said.lines().next().unwrap_or("")))
}
