//! The library that is loaded into nodes to make syncs fail, to shift their clocks and to redirect their
//! connections. It is compiled from `preload.c` where the machine has a C compiler.
//!
//! Invariant: a [`Preload`] is known to be loaded by the node's binary. It decides no faults.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;
use crate::process::Node;

const SOURCE: &str = include_str!("preload.c");

// Where the control file has what; the same as in preload.c.
const CLOCK_OFFSET_AT: u64 = 0;
const SYNC_FAILS_AT: u64 = 8;
const LOADED_AT: u64 = 12;
const SYNCS_FAILED_AT: u64 = 16;
const REDIRECTED_AT: u64 = 20;
const CONTROL_BYTES: u64 = 24;

/// The compiled library.
#[derive(Debug)]
pub(super) struct Preload {
    library: PathBuf,
}

impl Preload {
    /// Compiles the library into `folder` and tries it with the node's binary.
    ///
    /// # Errors
    /// What the machine lacks, in a few words.
    pub(super) fn compile(folder: &Path) -> Result<Preload, String> {
        let source = folder.join("preload.c");
        let library = folder.join("preload.so");
        fs::write(&source, SOURCE).map_err(|error| format!("{}: {error}", source.display()))?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(&compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let compiled = command.output().map_err(|error| format!("no C compiler: {error}"))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr);
            return Err(format!("the C compiler fails: {}", said.lines().next().unwrap_or("")));
        }
        let preload = Preload { library };
        let control = Control::create(&folder.join("preload.probe"))?;
        let mut probe = Command::new(binary::path("starling"));
        let variables = preload.environment(1, &control);
        probe.arg("--version").envs(variables.iter().map(|(name, value)| (*name, value)));
        let ran = probe.output().map_err(|error| error.to_string())?;
        match control.read(LOADED_AT) {
            0 => Err("the node's binary loads no library before libc".to_owned()),
            _ if !ran.status.success() => Err("the node's binary fails with it".to_owned()),
            _ => Ok(preload),
        }
    }

    /// Has `node` load the library from its next start on; what it does then is up to the control.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub(super) fn equip(&self, number: u8, node: &mut Node) -> Result<Control, String> {
        let control = Control::create(&node.config_path().with_extension("faults"))?;
        for (name, value) in self.environment(number, &control) {
            node.set_environment(name, &value);
        }
        Ok(control)
    }

    fn environment(&self, number: u8, control: &Control) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAULTS_CONTROL", control.path.display().to_string()),
            ("FAULTS_NODE", number.to_string()),
        ]
    }
}

/// The faults of one node, which its process sees at once. They outlive the process.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    file: File,
}

impl Control {
    fn create(path: &Path) -> Result<Control, String> {
        let open = || {
            let mut options = File::options();
            let file = options.create(true).truncate(true).read(true).write(true).open(path)?;
            file.set_len(CONTROL_BYTES)?;
            Ok(file)
        };
        let file =
            open().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))?;
        Ok(Control { path: path.to_owned(), file })
    }

    /// Puts the wall clock off by so much from the machine's.
    pub(super) fn shift_clock(&self, offset_ms: i64) {
        self.write(CLOCK_OFFSET_AT, &(offset_ms * 1_000_000).to_ne_bytes());
    }

    /// Lets every sync fail with EIO, or none.
    pub(super) fn fail_syncs(&self, fail: bool) {
        self.write(SYNC_FAILS_AT, &u32::from(fail).to_ne_bytes());
    }

    /// How many syncs failed so far.
    pub(super) fn syncs_failed(&self) -> u32 {
        self.read(SYNCS_FAILED_AT)
    }

    /// How many connections were redirected so far.
    pub(super) fn redirected(&self) -> u32 {
        self.read(REDIRECTED_AT)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("the control file can be written");
    }

    fn read(&self, at: u64) -> u32 {
        let mut word = [0; 4];
        self.file.read_exact_at(&mut word, at).expect("the control file has its length");
        u32::from_ne_bytes(word)
    }
}
