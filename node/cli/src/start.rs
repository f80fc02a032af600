//! `starling start`: a node from its configuration to a signal, and its graceful stop.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use starling_node::config::Config;
use starling_node::{Node, Seams, metrics};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::args::StartArgs;
use crate::failure::Failure;
use crate::{config, exit, logs, out};

/// How long threads that wait for the disk may take after the node has stopped.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop.
pub fn run(args: &StartArgs) -> ExitCode {
    let config = match load(args) {
        Ok(config) => config,
        Err(failure) => {
            out::note(failure.to_string());
            return failure.exit_code();
        }
    };
    logs::start(config.log);
    abort_on_panic();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    metrics::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(serve(config, args.exit_with_parent));
            runtime.shutdown_timeout(SHUTDOWN_WITHIN);
            result
        }
        Err(error) => Err(Failure::Start { problem: error.to_string(), file: None }),
    };
    match result {
        Ok(()) => exit::DONE,
        Err(failure) => {
            let failure = failure.of_file(args.source.config.as_deref());
            out::note(failure.to_string());
            failure.exit_code()
        }
    }
}

/// A panic is a broken invariant. A node that went on without the task that panicked would keep
/// promises that nobody is left to keep; a restart recovers as after a crash.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        error!(%panic, "this is a bug in Starling: stopping at once; the next start recovers");
        report(panic);
        std::process::abort();
    }));
}

fn load(args: &StartArgs) -> Result<Config, Failure> {
    let mut source = args.source.clone();
    if let (Some(dir), false) = (&args.data_dir, source.dev) {
        // A flag of its own is stronger than --set, so it comes last.
        source.set.push(("data_dir".to_owned(), dir.to_string_lossy().into_owned()));
    }
    Ok(config::load(&source, args.data_dir.as_deref())?)
}

async fn serve(config: Config, exit_with_parent: bool) -> Result<(), Failure> {
    let mut stop = Stop::listen(exit_with_parent)?;
    let listen = config.listen;
    let seams = Seams::system(&config)?;
    let node = Node::start(config, seams).await?;
    let joined = tokio::select! {
        joined = node.ready() => joined,
        () = stop.asked() => return finish(node, stop).await,
    };
    if let Err(problem) = joined {
        if let Err(error) = node.stop().await {
            error!(%error, "the node did not stop cleanly");
        }
        return Err(Failure::Start { problem: problem.to_string(), file: None });
    }
    info!(native = %listen.native, internode = %listen.internode, admin = %listen.admin, "serving");
    stop.asked().await;
    finish(node, stop).await
}

/// Stops in good order; asked a second time, at once.
async fn finish(node: Node, mut stop: Stop) -> Result<(), Failure> {
    tokio::select! {
        stopped = node.stop() => stopped.map_err(|error| Failure::Stop { problem: error.to_string() }),
        () = stop.asked_again() => {
            warn!("asked twice: stopping at once; the next start recovers as after a crash");
            std::process::exit(1)
        }
    }
}

/// Everything that asks the node to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    parent: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn listen(exit_with_parent: bool) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            parent: exit_with_parent.then(parent_is_gone),
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = ended(&mut self.parent) => {}
        }
    }

    /// The parent ends once only, so a second request is a signal.
    async fn asked_again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn ended(parent: &mut Option<oneshot::Receiver<()>>) {
    match parent {
        // However the sender ended, nobody watches the parent any more.
        Some(gone) => {
            let _however_it_ended = gone.await;
        }
        None => std::future::pending().await,
    }
}

/// Standard input is a pipe that only the parent holds: it ends when the parent does, even by
/// SIGKILL. A thread of its own reads it, because a read cannot be cancelled.
fn parent_is_gone() -> oneshot::Receiver<()> {
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut ignored), Ok(read) if read > 0) {}
        // The node may have stopped for another reason already.
        let _the_node_has_stopped = gone.send(());
    });
    told
}
