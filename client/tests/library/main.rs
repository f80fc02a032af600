//! The client library against nodes that do what a test tells them: what it asks whom, what it asks
//! again, what it gives up, and what it says then.

mod answers;
mod discovery;
mod fake;
mod refusals;
mod retries;
mod routing;
mod silence;
mod sockets;
