//! GET requests to a node's admin port.
//!
//! HTTP/1.0, so that the answer ends with the connection. It runs on a blocking thread with its own
//! limits in time, and says nothing about what an answer means.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for `path`; each step of it may take `within`.
///
/// # Errors
/// No connection, no answer in time, or none that is HTTP.
pub async fn get(at: SocketAddr, path: &str, within: Duration) -> io::Result<Answer> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || exchange(at, &path, within)).await?
}

fn exchange(at: SocketAddr, path: &str, within: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&at, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| Error::new(ErrorKind::InvalidData, "no HTTP answer"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split_whitespace();
    let version = words.next()?;
    let status = words.next()?.parse().ok()?;
    version.starts_with("HTTP/1").then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn answers_have_a_status_and_a_body() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nno\r\n\r\nno");
        let answer = answer.expect("it is well formed");
        assert_eq!((answer.status, answer.body.as_str()), (503, "no\r\n\r\nno"));
        assert!(parse("HTTP/1.0 200 OK\r\n").is_none());
        assert!(parse("SMTP 200\r\n\r\n").is_none());
    }
}
