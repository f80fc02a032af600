//! Where the binaries under test are.

use std::path::{Path, PathBuf};

/// The variable that names the folder of the binaries; `make test` sets it. It does not begin with
/// `STARLING_`, as those variables are configuration keys.
pub const FOLDER_VARIABLE: &str = "TEST_BIN_DIR";

/// The path of a binary of the workspace, as `starling`.
///
/// # Panics
/// If it is not there; the message says how to build it.
pub fn path(name: &str) -> PathBuf {
    let folder = match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => beside_this_one(),
    };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; type: cargo build --workspace --bins", path.display());
    path
}

/// Cargo puts test binaries into `deps` beside the others.
fn beside_this_one() -> PathBuf {
    let this = std::env::current_exe().expect("the system knows what it runs");
    let folder = this.parent().expect("a file is in a folder");
    if folder.ends_with("deps") { folder.parent().map(Path::to_owned) } else { None }
        .unwrap_or_else(|| folder.to_owned())
}
