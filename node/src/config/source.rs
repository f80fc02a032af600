//! Where values come from: flags over the environment over the file, each a layer of its own, so
//! that a message can name the place.
//!
//! It finds unknown keys and values of the wrong type; whether values fit one another is decided
//! in `resolve`.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::file::{Maybe, Written};
use super::keys::{self, KEYS};

/// What is laid over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Dotted key and value, from the command line; the last of a key wins.
    pub flags: Vec<(String, String)>,
    /// Variables by name; those that do not begin with `STARLING_` are ignored.
    pub environment: Vec<(String, String)>,
}

/// Variables of ours that are no keys: flags of the programs read them.
const OTHER_VARIABLES: [&str; 2] = ["STARLING_NODE", "STARLING_BUCKET"];

impl Overrides {
    /// The variables of this process, and no flags. Variables that are not UTF-8 are not ours.
    #[must_use]
    pub fn from_environment() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("STARLING_"))
            .collect();
        Self { flags: Vec::new(), environment }
    }

    /// Adds a flag.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }
}

/// One thing that can set keys.
#[derive(Debug)]
pub(super) enum Source {
    File { path: PathBuf, text: String },
    Variable { name: String, value: String },
    Flag { key: String, value: String },
}

impl Source {
    /// `file:line:column`, or the variable or flag.
    pub fn place(&self, span: Option<&Range<usize>>) -> String {
        match self {
            Self::File { path, text } => match span {
                Some(span) => {
                    let (line, column) = position(text, span.start);
                    format!("{}:{line}:{column}", path.display())
                }
                None => path.display().to_string(),
            },
            Self::Variable { name, .. } => format!("environment variable {name}"),
            Self::Flag { key, .. } => format!("flag --set {key}"),
        }
    }

    /// The line of `span` with carets below it; empty for what is not a file.
    pub fn excerpt(&self, span: &Range<usize>) -> String {
        let Self::File { text, .. } = self else { return String::new() };
        let (line, column) = position(text, span.start);
        let content = text.split('\n').nth(line - 1).unwrap_or_default().trim_end_matches('\r');
        let meant = text.get(span.clone()).unwrap_or_default();
        let width = meant.split('\n').next().unwrap_or_default().chars().count();
        let room = content.chars().count().saturating_sub(column - 1);
        let gutter = " ".repeat(line.to_string().len());
        let mut out = String::new();
        let carets = "^".repeat(width.min(room).max(1));
        let indent = " ".repeat(column - 1);
        writeln!(out, "  {gutter} |\n  {line} | {content}\n  {gutter} | {indent}{carets}")
            .expect("writing to a String does not fail");
        out
    }

    /// The text that was found.
    pub fn found(&self, span: Option<&Range<usize>>) -> Option<String> {
        match self {
            Self::File { text, .. } => {
                let found = text.get(span?.clone())?;
                let first = found.lines().next().unwrap_or_default().trim_end();
                let more = if found.lines().count() > 1 { " ..." } else { "" };
                Some(format!("{first}{more}"))
            }
            Self::Variable { value, .. } | Self::Flag { value, .. } => Some(format!("{value:?}")),
        }
    }
}

/// The line and column of a byte offset, both from 1, columns in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A source and what it sets.
#[derive(Debug)]
pub(super) struct Layer {
    pub source: Source,
    pub written: Written,
}

/// Every layer, the strongest first.
#[derive(Debug)]
pub(super) struct Layers {
    pub layers: Vec<Layer>,
    pub warnings: Vec<String>,
}

/// A value and where it was written.
pub(super) struct Found<'a, T> {
    pub value: &'a T,
    pub source: &'a Source,
    span: Range<usize>,
}

impl<T> Found<'_, T> {
    /// The place within a file; the text of the other sources is made up.
    pub fn span(&self) -> Option<Range<usize>> {
        matches!(self.source, Source::File { .. }).then(|| self.span.clone())
    }
}

impl Layers {
    /// Reads every source.
    pub fn read(file: Option<(&Path, &str)>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut layers = Vec::new();
        let mut warnings = Vec::new();
        for (key, value) in overrides.flags.iter().rev() {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let source = Source::Flag { key: key.clone(), value: value.clone() };
            layers.push(read_override(source, &path, value)?);
        }
        for (name, value) in &overrides.environment {
            match key_of_variable(name) {
                Variable::Key(path) => {
                    let source = Source::Variable { name: name.clone(), value: value.clone() };
                    layers.push(read_override(source, &path, value)?);
                }
                Variable::Wrong { advice } => {
                    let source = Source::Variable { name: name.clone(), value: value.clone() };
                    return Err(ConfigError::unknown_variable(&source, name, advice));
                }
                Variable::Unknown => {
                    warnings
                        .push(format!("the environment variable {name} is no key and is ignored"));
                }
                Variable::NotOurs => {}
            }
        }
        if let Some((path, text)) = file {
            let source = Source::File { path: path.to_owned(), text: text.to_owned() };
            let written = read_file(&source, text)?;
            layers.push(Layer { source, written });
        }
        Ok(Self { layers, warnings })
    }

    /// The strongest value of a key.
    pub fn find<'a, T>(
        &'a self,
        field: impl Fn(&'a Written) -> &'a Maybe<T>,
    ) -> Option<Found<'a, T>> {
        self.layers.iter().find_map(|layer| {
            let spanned = field(&layer.written).as_ref()?;
            Some(Found { value: spanned.get_ref(), source: &layer.source, span: spanned.span() })
        })
    }
}

enum Variable {
    Key(Vec<String>),
    Wrong { advice: String },
    Unknown,
    NotOurs,
}

/// A variable one or two letters from a key is a mistake; others may belong to someone else, as the
/// `STARLING_PORT_9050_TCP` that Kubernetes makes for a service named starling.
fn key_of_variable(name: &str) -> Variable {
    if !name.starts_with("STARLING_") || OTHER_VARIABLES.contains(&name) {
        return Variable::NotOurs;
    }
    let path = |key: &keys::Key| key.path.split('.').map(str::to_owned).collect();
    let named = |key: &&keys::Key| key.variable().is_some_and(|variable| variable == name);
    if let Some(key) = KEYS.iter().find(named) {
        return Variable::Key(path(key));
    }
    if name.starts_with("STARLING_KEYSPACES_") {
        let advice = "set keyspaces in the file, or with --set".to_owned();
        return Variable::Wrong { advice };
    }
    let near = KEYS
        .iter()
        .filter_map(keys::Key::variable)
        .map(|variable| (strsim::damerau_levenshtein(&variable, name), variable))
        .min();
    match near {
        Some((..=2, variable)) => Variable::Wrong { advice: format!("did you mean {variable}?") },
        _ => Variable::Unknown,
    }
}

/// A flag or variable is read as TOML where it is that, else as text, so that `2s` and
/// `"2s"` both do; a list may be written with commas alone.
fn read_override(source: Source, path: &[String], value: &str) -> Result<Layer, ConfigError> {
    let Some(key) = keys::containing(path).filter(|key| key.matches(path)) else {
        return Err(ConfigError::unknown_key(&source, path, None));
    };
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut attempts = vec![quoted(value)];
    if !value.contains(['\n', '\r']) {
        attempts.insert(0, value.to_owned());
    }
    if key.path == "seeds" && !value.trim_start().starts_with('[') {
        let list: Vec<String> = value.split(',').map(|part| quoted(part.trim())).collect();
        attempts = vec![format!("[{}]", list.join(", "))];
    }
    let dotted = path.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".");
    for attempt in attempts {
        let text = format!("{dotted} = {attempt}");
        if let Ok(written) = toml::from_str::<Written>(&text) {
            return Ok(Layer { source, written });
        }
    }
    Err(ConfigError::value(&source, key, &path.join("."), None))
}

/// Reads a file: its syntax, its keys, then its values.
fn read_file(source: &Source, text: &str) -> Result<Written, ConfigError> {
    let table = DeTable::parse(text)
        .map_err(|error| ConfigError::syntax(source, error.message(), error.span()))?;
    let mut seen = Seen::default();
    seen.walk(&[], table.get_ref());
    if let Some(problem) = seen.problems.into_iter().min_by_key(Problem::start) {
        return Err(match problem {
            Problem::UnknownKey(path, span) => ConfigError::unknown_key(source, &path, Some(span)),
            Problem::NotASection(path, span) => ConfigError::not_a_value(source, &path, Some(span)),
        });
    }
    let deserializer = toml::de::Deserializer::parse(text)
        .map_err(|error| ConfigError::syntax(source, error.message(), error.span()))?;
    Written::deserialize(deserializer).map_err(|error| {
        let inside = error.span().and_then(|span| {
            seen.values
                .iter()
                .find(|(_, _, value)| value.start <= span.start && span.end <= value.end)
        });
        match inside {
            Some((key, path, _)) => ConfigError::value(source, key, &path.join("."), error.span()),
            None => ConfigError::syntax(source, error.message(), error.span()),
        }
    })
}

enum Problem {
    UnknownKey(Vec<String>, Range<usize>),
    NotASection(Vec<String>, Range<usize>),
}

impl Problem {
    fn start(&self) -> usize {
        match self {
            Self::UnknownKey(_, span) | Self::NotASection(_, span) => span.start,
        }
    }
}

/// What a walk over the keys of a file found.
#[derive(Default)]
struct Seen {
    /// Each value, down to those inside tables, with the key it belongs to.
    values: Vec<(&'static keys::Key, Vec<String>, Range<usize>)>,
    problems: Vec<Problem>,
}

impl Seen {
    fn walk(&mut self, above: &[String], table: &DeTable<'_>) {
        for (name, value) in table {
            let mut path = above.to_vec();
            path.push(name.get_ref().to_string());
            if let Some(key) = keys::containing(&path) {
                self.note(key, path, value);
            } else if !KEYS.iter().any(|key| key.is_below(&path)) {
                self.problems.push(Problem::UnknownKey(path, name.span()));
            } else if let DeValue::Table(inner) = value.get_ref() {
                self.walk(&path, inner);
            } else {
                self.problems.push(Problem::NotASection(path, value.span()));
            }
        }
    }

    fn note(&mut self, key: &'static keys::Key, path: Vec<String>, value: &Spanned<DeValue<'_>>) {
        if let DeValue::Table(inner) = value.get_ref() {
            for (name, value) in inner {
                let mut path = path.clone();
                path.push(name.get_ref().to_string());
                self.note(key, path, value);
            }
        }
        self.values.push((key, path, value.span()));
    }
}
