//! The terminal: the only place of this binary that writes to standard output and standard error.
//!
//! A reader that has gone away (`starling status | head -1`) ends the writing and is no error.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use serde::Serialize;

/// Writes a line to standard output.
pub fn line(text: impl AsRef<str>) {
    let mut bytes = text.as_ref().as_bytes().to_vec();
    bytes.push(b'\n');
    raw(&bytes);
}

/// Writes bytes to standard output as they are.
pub fn raw(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    finish(written);
}

/// Writes a line to standard output, or says why not, where that changes what has to be told.
///
/// # Errors
/// What the system said; not that the reader has gone away.
pub fn try_line(text: impl AsRef<str>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a value as one line of JSON to standard output.
pub fn json(value: &impl Serialize) {
    line(serde_json::to_string(value).expect("plain data is always JSON"));
}

/// Writes a line to standard error.
pub fn note(text: impl AsRef<str>) {
    finish(writeln!(io::stderr().lock(), "{}", text.as_ref()));
}

/// Whether standard error is a terminal, which may show colours.
pub fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

fn finish(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        // Nobody can be told that nothing can be told.
        Err(_) => std::process::exit(1),
    }
}

/// A table whose columns are as wide as their widest cell; numbers are the caller's to align.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
