//! What a person is told when something failed: a code, what happened, its effect, what to try.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use starling_client::{Error, WireError};
use starling_node::StartError;
use starling_node::config::ConfigError;

use crate::{exit, out};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is not accepted; its own text is whole.
    Config(#[from] ConfigError),
    /// A node did not start, or never came to serve.
    Start {
        /// What happened and, behind the last semicolon, what to do: so all texts of failed starts end.
        problem: String,
        /// The file with the configuration, where there is one.
        file: Option<PathBuf>,
    },
    /// A node did not stop in good order.
    Stop {
        /// What happened.
        problem: String,
    },
    /// The command line asks for something that cannot be.
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// A node, or the way to it, failed.
    Client(#[from] Error),
    /// The cluster has no such keyspace.
    NoKeyspace {
        /// What a node said.
        error: Error,
        /// The keyspaces that there are.
        known: Vec<String>,
    },
    /// A write was done, and standard output did not take its context.
    Unprinted {
        /// Why not.
        source: io::Error,
    },
    /// The demo could not go on.
    Demo {
        /// What happened.
        problem: String,
    },
    /// A snapshot cannot be read.
    Snapshot {
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: String,
        /// Whether keys may have been restored before.
        has_begun: bool,
    },
    /// The operating system refused.
    System(#[from] io::Error),
}

impl Failure {
    /// A failed start with the file of its configuration.
    pub fn of_file(self, config: Option<&Path>) -> Self {
        match self {
            Self::Start { problem, .. } => {
                Self::Start { problem, file: config.map(Path::to_owned) }
            }
            other => other,
        }
    }

    /// The exit status.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Client(error) if error.is_unknown() => exit::OUTCOME_UNKNOWN.into(),
            Self::Client(error) if nobody_serves(error) => exit::UNREACHABLE.into(),
            Self::Unprinted { .. } => exit::OUTCOME_UNKNOWN.into(),
            Self::Usage { .. } => exit::USAGE.into(),
            _ => exit::FAILED,
        }
    }

    /// Tells it: to a person on standard error, and with `json` to a machine, where it reads the answer.
    pub fn tell(&self, json: bool) {
        out::note(self.to_string());
        // What standard output does not take once, it does not take twice.
        if json && !matches!(self, Self::Unprinted { .. }) {
            let error = match self {
                Self::Client(error) => json!({
                    "code": error.code(),
                    "message": error.to_string(),
                    "advice": error.advice(),
                    "outcome_unknown": error.is_unknown(),
                }),
                other => json!({ "code": other.code(), "message": other.problem() }),
            };
            out::json(&json!({ "error": error }));
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Start { .. } => "S010",
            Self::Stop { .. } => "S011",
            Self::Usage { .. } => "S012",
            Self::Client(error) | Self::NoKeyspace { error, .. } => error.code(),
            Self::Unprinted { .. } | Self::System(_) => "S013",
            Self::Demo { .. } => "S951",
            Self::Snapshot { .. } => "S402",
        }
    }

    fn problem(&self) -> String {
        match self {
            Self::Config(error) => error.to_string(),
            Self::Start { problem, .. }
            | Self::Stop { problem }
            | Self::Usage { problem, .. }
            | Self::Snapshot { problem, .. }
            | Self::Demo { problem } => problem.clone(),
            Self::Client(error) => error.to_string(),
            Self::NoKeyspace { error, known } if known.is_empty() => {
                format!("{error}, nor any other")
            }
            Self::NoKeyspace { error, known } => {
                format!("{error}; there are: {}", known.join(", "))
            }
            Self::Unprinted { source } => {
                format!("the write is done, but its context could not be printed: {source}")
            }
            Self::System(error) => error.to_string(),
        }
    }
}

/// Whether there was no node that could have done it.
fn nobody_serves(error: &Error) -> bool {
    let not_serving =
        matches!(error.wire(), Some(WireError::NotReady { .. } | WireError::ShuttingDown));
    error.is_unreachable() || not_serving
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start { problem: error.to_string(), file: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            // Texts of the configuration are whole already.
            Self::Start { problem, .. } if problem.starts_with("error[") => f.write_str(problem),
            Self::Start { problem, file } => {
                let (problem, advice) = split_advice(problem);
                let place = file.as_ref().map(|file| format!("\n  --> {}", file.display()));
                let problem = format!("{problem}{}", place.unwrap_or_default());
                message(f, self.code(), "start", &problem, "the node does not start", advice)
            }
            Self::Stop { problem } => message(
                f,
                self.code(),
                "stop",
                problem,
                "nothing acknowledged is lost; the next start recovers as after a crash",
                None,
            ),
            Self::Usage { problem, advice } => {
                message(f, self.code(), "usage", problem, "nothing was done", Some(advice))
            }
            Self::Client(error) => client(f, error),
            Self::NoKeyspace { .. } => {
                let advice = "use one of them: none can be added to a cluster yet";
                write!(
                    f,
                    "error[{}] {}\n  effect  nothing was done\n  try     {advice}",
                    self.code(),
                    self.problem()
                )
            }
            Self::Unprinted { .. } => message(
                f,
                self.code(),
                "system",
                &self.problem(),
                "the write was applied; do not repeat it",
                Some("`starling get` reads it, with its context"),
            ),
            Self::Demo { problem } => message(
                f,
                self.code(),
                "demo",
                problem,
                "the demo has ended; its nodes are stopped",
                Some("starling demo --keep DIR keeps the logs of the nodes"),
            ),
            Self::Snapshot { problem, advice, has_begun } => {
                let effect = match has_begun {
                    true => "what was restored before stays; restoring again changes nothing of it",
                    false => "nothing was done",
                };
                message(f, self.code(), "snapshot", problem, effect, Some(advice))
            }
            Self::System(error) => {
                message(f, self.code(), "system", &error.to_string(), "the command has ended", None)
            }
        }
    }
}

/// Whether the same request may succeed later: of all that a node refuses, what is for want of replicas or room, or of news.
fn may_pass(error: &Error) -> bool {
    error.code().starts_with("S1") || matches!(error.wire(), Some(WireError::FloorNotMet))
}

fn split_advice(problem: &str) -> (&str, Option<&str>) {
    match problem.rsplit_once("; ") {
        Some((problem, advice)) => (problem, Some(advice)),
        None => (problem, None),
    }
}

fn client(f: &mut fmt::Formatter<'_>, error: &Error) -> fmt::Result {
    let effect = if error.is_unknown() {
        "the write may have been applied, or may yet be"
    } else if may_pass(error) {
        "nothing was done; safe to retry"
    } else {
        "nothing was done"
    };
    writeln!(f, "error[{}] {error}", error.code())?;
    writeln!(f, "  effect  {effect}")?;
    write!(f, "  try     {}", error.advice())
}

fn message(
    f: &mut fmt::Formatter<'_>,
    code: &str,
    subject: &str,
    problem: &str,
    effect: &str,
    advice: Option<&str>,
) -> fmt::Result {
    write!(f, "error[{code}] {subject}: {problem}\n  effect  {effect}")?;
    match advice {
        Some(advice) => write!(f, "\n  try     {advice}"),
        None => Ok(()),
    }
}
