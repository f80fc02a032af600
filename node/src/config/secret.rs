//! Reading the cluster's secret from its file.
//!
//! The secret never appears in a message, in a log or in [`super::Config`], which is printed.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Config;

/// Hexadecimal digits of a secret of 32 bytes.
const SECRET_DIGITS: usize = 64;

/// Why there is no secret although a file was named.
#[derive(Debug)]
#[non_exhaustive]
pub enum SecretError {
    /// The file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold 64 hexadecimal digits.
    Malformed {
        /// The file.
        path: PathBuf,
        /// How many characters it holds, white space at the ends aside.
        digits: usize,
    },
}

impl Config {
    /// The cluster's secret from `secret_file`; none when the nodes are to draw it together.
    /// It is needed at every start: the cluster's id follows from it.
    ///
    /// # Errors
    /// [`SecretError`], which never contains the secret.
    pub fn secret(&self) -> Result<Option<[u8; 32]>, SecretError> {
        self.secret_file.as_deref().map(read).transpose()
    }
}

fn read(path: &Path) -> Result<[u8; 32], SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read(path).map_err(unreadable)?;
    let digits = text.trim_ascii();
    decode(digits)
        .ok_or_else(|| SecretError::Malformed { path: path.to_owned(), digits: digits.len() })
}

fn decode(digits: &[u8]) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    if digits.len() != SECRET_DIGITS {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(secret)
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[S006] secret: {}", self.problem())?;
        writeln!(f, "  effect  the node does not start")?;
        write!(f, "  try     {}", self.advice())
    }
}

impl SecretError {
    /// The file and what is wrong with it.
    pub(super) fn problem(&self) -> String {
        let path = self.path().display();
        match self {
            Self::Unreadable { source, .. } => format!("{path} cannot be read: {source}"),
            Self::Exposed { mode, .. } => {
                format!("{path} may be read by others than its owner (mode {mode:o})")
            }
            Self::Malformed { digits, .. } if *digits == SECRET_DIGITS => {
                format!("{path} holds {digits} characters that are not all hexadecimal digits")
            }
            Self::Malformed { digits, .. } => {
                format!("{path} holds {digits} characters, not {SECRET_DIGITS} hexadecimal digits")
            }
        }
    }

    /// What to do.
    pub(super) fn advice(&self) -> String {
        let path = self.path().display();
        match self {
            Self::Exposed { .. } => format!("chmod 600 {path}"),
            Self::Unreadable { .. } | Self::Malformed { .. } => {
                format!("(umask 077; openssl rand -hex 32 > {path}), and copy it to every node")
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. }
            | Self::Exposed { path, .. }
            | Self::Malformed { path, .. } => path,
        }
    }
}

impl std::error::Error for SecretError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Exposed { .. } | Self::Malformed { .. } => None,
        }
    }
}
