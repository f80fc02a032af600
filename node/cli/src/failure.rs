//! What a person is told when something failed: a code, what happened, its effect, what to try.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use starling_client::Error;
use starling_node::StartError;
use starling_node::config::ConfigError;

use crate::exit;

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
            Self::Client(error) if error.is_unreachable() => exit::UNREACHABLE.into(),
            Self::Client(error) if error.is_unknown() => exit::OUTCOME_UNKNOWN.into(),
            _ => exit::FAILED,
        }
    }
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
                message(f, "S010", "start", &problem, "the node does not start", None)
            }
            Self::Stop { problem } => message(
                f,
                "S011",
                "stop",
                problem,
                "nothing acknowledged is lost; the next start recovers as after a crash",
                None,
            ),
            Self::Usage { problem, advice } => {
                message(f, "S012", "usage", problem, "nothing was done", Some(advice))
            }
            Self::Client(error) => client(f, error),
            Self::Demo { problem } => message(
                f,
                "S951",
                "demo",
                problem,
                "the demo has ended; its nodes are stopped",
                Some("starling demo --keep DIR keeps the logs of the nodes"),
            ),
            Self::System(error) => {
                message(f, "S013", "system", &error.to_string(), "the command has ended", None)
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
