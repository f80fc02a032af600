//! The admin port of a real node: what it answers, in which state, and that a node says which of
//! its ports is taken.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use starling_node::config::Overrides;
use starling_node::{Config, Node, Seams, StartError};

/// A development node on a loopback address of its own, so that tests do not meet.
fn config(data_dir: &Path, address: &str) -> Config {
    let overrides = Overrides::default()
        .with("listen.address", address)
        .with("listen.admin", format!("{address}:9180"));
    Config::dev_with(data_dir, &overrides).expect("a development node")
}

async fn start(config: Config) -> Result<Node, StartError> {
    let seams = Seams::system(&config).expect("the operating system");
    Node::start(config, seams).await
}

/// The status line and the body.
async fn get(at: SocketAddr, path: &'static str) -> (String, String) {
    let exchange = move || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::task::spawn_blocking(exchange).await.expect("no panic").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split_whitespace().nth(1).expect("a status code");
    (code.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_node_shows_its_health_status_and_metrics() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "127.0.91.1");
    let admin = config.listen.admin;
    let node = start(config).await.expect("it starts");
    node.ready().await.expect("it serves");

    assert_eq!(get(admin, "/health/live").await.0, "200");
    let (code, body) = get(admin, "/health").await;
    assert_eq!((code.as_str(), body.as_str()), ("200", r#"{"status":"serving","waiting_for":[]}"#));

    let (code, body) = get(admin, "/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(code, "200");
    assert_eq!(status["cluster"], "dev");
    assert_eq!(status["epoch"], 1);
    assert_eq!(status["nodes"][0]["address"], "127.0.91.1:9050");
    assert_eq!(status["nodes"][0]["status"], "up");
    assert_eq!(status["nodes"][0]["owns"], 1.0);
    assert_eq!(status["slots"]["full"], 4096);
    assert_eq!(status["slots"]["below_quorum"], 0);

    let (code, metrics) = get(admin, "/metrics").await;
    assert_eq!(code, "200");
    for line in [
        "starling_build_info{version=\"0.1.0\"} 1",
        "starling_node_state{state=\"serving\"} 1",
        "starling_ring_epoch 1",
        "starling_ring_slots{health=\"full\"} 4096",
        "starling_ring_ownership_ratio 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    let (code, body) = get(admin, "/v1/digest?bucket=demo.nothing").await;
    assert_eq!(code, "404", "{body}");
    assert_eq!(get(admin, "/v1/digest").await.0, "400");
    assert_eq!(get(admin, "/nowhere").await.0, "404");

    node.stop().await.expect("a clean stop");
    assert!(TcpStream::connect(admin).is_err(), "the port is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_seeds_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "127.0.91.2");
    let missing = "127.0.91.3:7000";
    let config = Config {
        seeds: [config.listen.internode, missing.parse().expect("an address")].into(),
        ..config
    };
    let admin = config.listen.admin;
    let node = start(config).await.expect("it starts");
    assert_eq!(get(admin, "/health/live").await.0, "200");
    let (code, body) = get(admin, "/health/ready").await;
    assert_eq!(code, "503");
    assert_eq!(body, format!(r#"{{"status":"starting","waiting_for":["{missing}"]}}"#));
    assert_eq!(get(admin, "/v1/digest?bucket=demo.x").await.0, "503");
    let began = starling_node::time::now();
    node.stop().await.expect("a clean stop");
    assert!(began.elapsed() < Duration::from_secs(4), "waiting does not hold up a stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "127.0.91.4");
    let taken = TcpListener::bind(config.listen.native).expect("a free port");
    let Err(error) = start(config).await else { panic!("the port is taken") };
    let message = error.to_string();
    for part in ["127.0.91.4:9050", "listen.native_port", "in use"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    drop(taken);
}
