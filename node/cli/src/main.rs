//! The binary `starling`: starts a node, and speaks to one.
//!
//! - [`args`]: the command line
//! - [`start`], [`logs`]: running a node
//! - [`status`], [`data`], [`repair`], [`snapshot`]: asking one, through the client library
//! - [`config`]: checking files
//! - [`demo`]: three nodes, a kill, and the proof
//! - [`out`], [`failure`], [`exit`]: what a person and a script are told
//! - [`http`]: one question to an admin port
//!
//! Everything is decided in the libraries; this is their view.

mod args;
mod config;
mod data;
mod demo;
mod exit;
mod failure;
mod http;
mod logs;
mod out;
mod repair;
mod snapshot;
mod start;
mod status;

use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use starling_client::Client;

use args::{Cli, Command, NodeAddress};
use failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Start(args) => start::run(&args),
        Command::Demo(args) => block_on(args.json, demo::run(&args)),
        Command::Status(args) => block_on(args.json, status::status(&args)),
        Command::Health(args) => block_on(false, status::health(&args)),
        Command::Repair(command) => block_on(command.is_json(), repair::run(&command)),
        Command::Snapshot(command) => block_on(command.is_json(), snapshot::run(&command)),
        Command::Config(command) => config::run(command),
        Command::Get(args) => block_on(args.bucket.json, data::get(&args)),
        Command::Put(args) => block_on(args.bucket.json, data::put(&args)),
        Command::Delete(args) => block_on(args.bucket.json, data::delete(&args)),
        Command::Completions { shell } => {
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "starling", &mut completions);
            out::raw(&completions);
            exit::DONE
        }
        Command::Version => {
            out::line(format!("starling {}", env!("CARGO_PKG_VERSION")));
            exit::DONE
        }
    }
}

/// Runs what talks to nodes, and tells of its failure, with `json` to machines too.
fn block_on(json: bool, work: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::from(error)),
    };
    result.unwrap_or_else(|failure| {
        failure.tell(json);
        failure.exit_code()
    })
}

/// A client of the first node that answers.
async fn connect(nodes: &NodeAddress) -> Result<Client, Failure> {
    let mut builder = Client::builder();
    for node in &nodes.node {
        builder = builder.contact_point(node);
    }
    Ok(builder.build().await?)
}
