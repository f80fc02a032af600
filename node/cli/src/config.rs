//! `starling config`: what the node would make of a file, without starting one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use starling_node::config::{Config, ConfigError, Overrides};

use crate::args::{ConfigCommand, ConfigSource};
use crate::{exit, out};

/// Runs the verb.
pub fn run(command: ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check { files } => check(&files),
        ConfigCommand::Show { source, effective } => show(&source, effective),
        ConfigCommand::Docs => {
            out::raw(Config::docs().as_bytes());
            exit::DONE
        }
    }
}

/// Reads the configuration that the flags point to.
pub fn load(source: &ConfigSource, dev_data_dir: Option<&Path>) -> Result<Config, ConfigError> {
    let overrides = Overrides { flags: source.set.clone(), ..Overrides::from_environment() };
    match &source.config {
        Some(file) if !source.dev => Config::load(file, &overrides),
        _ => Config::dev_with(dev_data_dir.unwrap_or(Path::new("data/dev")), &overrides),
    }
}

fn check(files: &[PathBuf]) -> ExitCode {
    let mut code = exit::DONE;
    for file in files {
        // As `start` in this shell would read it.
        match Config::check(file, &Overrides::from_environment()) {
            Ok(config) => {
                for warning in &config.warnings {
                    out::note(format!("warning: {warning}"));
                }
                out::line(format!("{}: accepted", file.display()));
            }
            Err(error) => {
                out::note(error.to_string());
                code = exit::FAILED;
            }
        }
    }
    code
}

fn show(source: &ConfigSource, effective: bool) -> ExitCode {
    match (load(source, None), &source.config) {
        (Err(error), _) => {
            out::note(error.to_string());
            exit::FAILED
        }
        (Ok(config), Some(_)) if effective => {
            out::raw(config.effective().as_bytes());
            exit::DONE
        }
        (Ok(config), None) => {
            out::raw(config.effective().as_bytes());
            exit::DONE
        }
        (Ok(_), Some(file)) => match std::fs::read(file) {
            Ok(text) => {
                out::raw(&text);
                exit::DONE
            }
            Err(error) => {
                out::note(format!("error: {} cannot be read: {error}", file.display()));
                exit::FAILED
            }
        },
    }
}
