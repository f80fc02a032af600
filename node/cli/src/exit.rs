//! The exit statuses, which scripts rely on.

use std::process::ExitCode;

/// It was done; the cluster is healthy.
pub const DONE: ExitCode = ExitCode::SUCCESS;
/// It failed, and surely nothing was done.
pub const FAILED: ExitCode = ExitCode::FAILURE;
/// There is nothing under the key.
pub const NOTHING_THERE: u8 = 3;
/// It may or may not have been done.
pub const OUTCOME_UNKNOWN: u8 = 4;
/// Some node is down, and every slot has a quorum.
pub const DEGRADED: u8 = 10;
/// Some slot has no quorum.
pub const BELOW_QUORUM: u8 = 11;
/// The command line asks for something that cannot be; clap has the same.
pub const USAGE: u8 = 2;
/// No node answers, or none serves yet.
pub const UNREACHABLE: u8 = 12;
