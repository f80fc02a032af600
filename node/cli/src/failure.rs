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
        /// What happened.
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
    /// The demo could not go on.
    Demo {
        /// What happened.
        problem: String,
    },
    /// A snapshot cannot be read.
    Snapshot {
        /// What is wrong with it, and what to do.
        problem: String,
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
            Self::Usage { .. } => exit::USAGE.into(),
            _ => exit::FAILED,
        }
    }

    /// Tells it: to a person on standard error, and with `json` to a machine, where it reads the answer.
    pub fn tell(&self, json: bool) {
        out::note(self.to_string());
        if json {
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
            Self::Client(error) => error.code(),
            Self::Demo { .. } => "S951",
            Self::Snapshot { .. } => "S402",
            Self::System(_) => "S013",
        }
    }

    fn problem(&self) -> String {
        match self {
            Self::Config(error) => error.to_string(),
            Self::Start { problem, .. }
            | Self::Stop { problem }
            | Self::Usage { problem, .. }
            | Self::Snapshot { problem }
            | Self::Demo { problem } => problem.clone(),
            Self::Client(error) => error.to_string(),
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
                let place = file.as_ref().map(|file| format!("\n  --> {}", file.display()));
                let problem = format!("{problem}{}", place.unwrap_or_default());
                message(f, self.code(), "start", &problem, "the node does not start", None)
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
            Self::Demo { problem } => message(
                f,
                self.code(),
                "demo",
                problem,
                "the demo has ended; its nodes are stopped",
                Some("starling demo --keep DIR keeps the logs of the nodes"),
            ),
            Self::Snapshot { problem } => message(
                f,
                self.code(),
                "snapshot",
                problem,
                "what was restored before stays; restoring again changes nothing of it",
                None,
            ),
            Self::System(error) => {
                message(f, self.code(), "system", &error.to_string(), "the command has ended", None)
            }
        }
    }
}

fn client(f: &mut fmt::Formatter<'_>, error: &Error) -> fmt::Result {
    let effect = if error.is_unknown() {
        "the write may have been applied, or may yet be"
    } else {
        "nothing was done; safe to retry"
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
