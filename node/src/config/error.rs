//! What a person is told when the configuration cannot be used.
//!
//! Every message names the file or variable, the line, what was found and what is accepted, says
//! that the node does not start, and what to do. The texts are part of the interface: a golden test
//! holds them.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::keys::{self, Key};
use super::secret::SecretError;
use super::source::Source;

/// Why there is no configuration.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file, a variable or a flag says something that is not accepted.
    Invalid(Box<Diagnostic>),
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable code, `S002` to `S006`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub problem: String,
    /// Where: a file with its line, a variable or a flag. Empty when something is missing everywhere.
    pub place: String,
    /// The line with a caret below what is meant; empty for variables and flags.
    pub excerpt: String,
    /// What was found.
    pub found: Option<String>,
    /// What is accepted.
    pub accepts: Option<String>,
    /// What to do.
    pub advice: String,
}

impl ConfigError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "S001",
            Self::Invalid(diagnostic) => diagnostic.code,
        }
    }

    pub(super) fn syntax(source: &Source, message: &str, span: Option<Range<usize>>) -> Self {
        Diagnostic {
            code: "S002",
            problem: format!("not TOML: {message}"),
            found: None,
            accepts: None,
            advice: "see https://toml.io for the syntax; config/production.toml shows every key"
                .to_owned(),
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    pub(super) fn unknown_key(
        source: &Source,
        path: &[String],
        span: Option<Range<usize>>,
    ) -> Self {
        let nearest = keys::nearest(path);
        let siblings = keys::beside(path);
        Diagnostic {
            code: "S003",
            problem: format!("unknown key `{}`", path.join(".")),
            found: None,
            accepts: Some(siblings.join(", ")),
            advice: nearest.map_or_else(
                || "remove it; `starling config docs` explains every key".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            ),
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    /// A variable that is nearly, or cannot be, the name of a key.
    pub(super) fn unknown_variable(source: &Source, name: &str, advice: String) -> Self {
        Diagnostic {
            code: "S003",
            problem: format!("no key is set by the variable {name}"),
            advice,
            ..Diagnostic::at(source, None)
        }
        .into()
    }

    pub(super) fn not_a_value(
        source: &Source,
        path: &[String],
        span: Option<Range<usize>>,
    ) -> Self {
        Diagnostic {
            code: "S004",
            problem: format!("`{}` is a section", path.join(".")),
            found: source.found(span.as_ref()),
            accepts: Some(format!("keys below it: {}", keys::below(path).join(", "))),
            advice: "write it as a [section] of the file".to_owned(),
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    pub(super) fn value(
        source: &Source,
        key: &Key,
        path: &str,
        span: Option<Range<usize>>,
    ) -> Self {
        Diagnostic {
            code: "S004",
            problem: format!("`{path}` has a value that is not accepted"),
            found: source.found(span.as_ref()),
            accepts: Some(key.accepts.to_owned()),
            advice: default_advice(key),
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    /// A value that is fine by itself and does not fit the rest.
    pub(super) fn conflict(
        source: &Source,
        span: Option<Range<usize>>,
        problem: String,
        accepts: Option<String>,
        advice: String,
    ) -> Self {
        Diagnostic {
            code: "S005",
            problem,
            found: source.found(span.as_ref()),
            accepts,
            advice,
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    /// The file of the cluster's secret cannot be used.
    pub(super) fn secret(source: &Source, span: Option<Range<usize>>, error: &SecretError) -> Self {
        Diagnostic {
            code: "S006",
            problem: format!("`secret_file`: {}", error.problem()),
            accepts: Some("a file of 64 hexadecimal digits that only its owner reads".to_owned()),
            advice: error.advice(),
            ..Diagnostic::at(source, span)
        }
        .into()
    }

    /// A key without a default that was not written.
    pub(super) fn missing(place: String, path: &str, key: &Key) -> Self {
        Diagnostic {
            code: "S005",
            problem: format!("`{path}` is missing"),
            place,
            excerpt: String::new(),
            found: None,
            accepts: Some(key.accepts.to_owned()),
            advice: "write it; config/demo shows three nodes, config/single.toml one".to_owned(),
        }
        .into()
    }
}

fn default_advice(key: &Key) -> String {
    match key.default {
        keys::KeyDefault::Value(value) => format!("the default is {value}"),
        keys::KeyDefault::Described(_) => {
            format!("`starling config docs` explains `{}`", key.path)
        }
    }
}

impl Diagnostic {
    /// A diagnostic with its place filled in and nothing else.
    fn at(source: &Source, span: Option<Range<usize>>) -> Self {
        Self {
            code: "",
            problem: String::new(),
            place: source.place(span.as_ref()),
            excerpt: span.map_or_else(String::new, |span| source.excerpt(&span)),
            found: None,
            accepts: None,
            advice: String::new(),
        }
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Invalid(Box::new(diagnostic))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                writeln!(f, "error[S001] config: {} cannot be read: {source}", path.display())?;
                writeln!(f, "  effect  the node does not start")?;
                write!(
                    f,
                    "  try     another path; config/single.toml and config/production.toml are there to copy"
                )
            }
            Self::Invalid(diagnostic) => diagnostic.fmt(f),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}] config: {}", self.code, self.problem)?;
        if !self.place.is_empty() {
            writeln!(f, "  --> {}", self.place)?;
        }
        f.write_str(&self.excerpt)?;
        if let Some(found) = &self.found {
            writeln!(f, "  found   {found}")?;
        }
        if let Some(accepts) = &self.accepts {
            writeln!(f, "  accepts {accepts}")?;
        }
        writeln!(f, "  effect  the node does not start")?;
        write!(f, "  try     {}", self.advice)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid(_) => None,
        }
    }
}
