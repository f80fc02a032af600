//! How the client address of a node is written: `host:port`, for programs that take one from a command
//! line or the environment. Names are resolved when a client is built, not here.

/// A text is no address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address of a node; accepted: host:port, as in 127.0.0.1:9050 or [::1]:9050"
)]
pub struct ContactPointError {
    text: String,
}

/// Checks that a text is written as the client address of a node, and returns it as it is.
///
/// # Errors
/// There is no host, no port from 1 to 65535, or something else beside them, such as `http://`.
pub fn parse_contact_point(text: &str) -> Result<String, ContactPointError> {
    let refused = || ContactPointError { text: text.to_owned() };
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(is_of_name)
        }
    };
    // A sign is no digit, though it parses.
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = is_port && port.parse::<u16>().is_ok_and(|port| port != 0);
    if is_host && is_port { Ok(text.to_owned()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::parse_contact_point;

    #[test]
    fn hosts_with_ports_are_accepted_and_nothing_else() {
        for text in ["127.0.0.1:9050", "[::1]:9050", "localhost:1", "node-1.shop_a.example:65535"] {
            assert_eq!(parse_contact_point(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "127.0.0.1",
            ":9050",
            "node:",
            "node:0",
            "node:65536",
            "node:+5",
            "node:x",
            "::1:9050",
            "[::1]",
            "[node]:9050",
            "http://node:9050",
            "a b:9050",
            "node:9050/",
        ] {
            let refused = parse_contact_point(text).expect_err(text).to_string();
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
    }
}
