//! One GET to the admin port of a node on this machine. HTTP/1.0, so that the answer ends with the
//! connection; no redirects, no TLS.

use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The JSON at `path`, whatever the status: errors of the admin port are JSON too and do not decode.
pub async fn get<T: DeserializeOwned + Send + 'static>(
    at: SocketAddr,
    path: String,
    within: Duration,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(move || {
        let body = exchange(at, &path, within)?;
        serde_json::from_slice(&body).map_err(|_| {
            Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&body).trim().to_owned())
        })
    })
    .await?
}

fn exchange(at: SocketAddr, path: &str, within: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&at, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let blank = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = blank.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no HTTP answer"))? + 4;
    Ok(answer.split_off(body))
}
