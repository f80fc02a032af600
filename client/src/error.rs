//! Why a request failed, and what it may have done.

use std::fmt;

use starling_protocol::WireError;

/// See the module.
/// `Debug` reads as `Display` does, after the code: it is what `unwrap` and a `main` that returns the error show.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node answered with an error.
    #[error("{error}")]
    Refused {
        /// What it said.
        error: WireError,
        /// Whether this attempt or an earlier one may have done it all the same.
        unknown: bool,
    },
    /// No attempt was answered before the timeout.
    #[error("no node answered in time ({last})")]
    Timeout {
        /// What the last attempt met.
        last: String,
        /// Whether a write may have been applied.
        unknown: bool,
    },
    /// None of the nodes that the client knows can be reached: at first, its contact points.
    #[error("no node can be reached: {}", tried.join("; "))]
    Unreachable {
        /// Each node and why.
        tried: Vec<String>,
    },
    /// A node answered something that this client does not understand.
    #[error("a node's answer is not understood: {message}")]
    Protocol {
        /// What is wrong with it.
        message: String,
        /// Whether a write may have been applied.
        unknown: bool,
    },
    /// No contact point was given.
    #[error("no contact point was given")]
    NoContactPoint,
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}] {self}", self.code())?;
        if self.is_unknown() {
            formatter.write_str("; a write may have been applied")?;
        }
        Ok(())
    }
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { error, .. } => error.code(),
            Self::Timeout { .. } => "S103",
            Self::Unreachable { .. } => "S108",
            Self::Protocol { .. } => "S902",
            Self::NoContactPoint => "S903",
        }
    }

    /// Whether a write may have been applied, or may yet be. Reads change nothing.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Refused { unknown, .. }
            | Self::Timeout { unknown, .. }
            | Self::Protocol { unknown, .. } => *unknown,
            Self::Unreachable { .. } | Self::NoContactPoint => false,
        }
    }

    /// Whether no node could be reached at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Refused {
                error: WireError::Unavailable { .. } | WireError::Overloaded { .. },
                unknown: true,
            } => "read the key, then decide: an earlier attempt may have been applied",
            Self::Refused { error, .. } => error.advice(),
            Self::Timeout { .. } => {
                "look at `starling status`; after a write, read the key, then decide"
            }
            Self::Unreachable { .. } => {
                "check that a node runs there: `starling start --config FILE`"
            }
            Self::Protocol { .. } => "use client and nodes of one release",
            Self::NoContactPoint => "name a node, as in --node 127.0.0.1:9050",
        }
    }

    /// The cluster's own words, where it said any.
    #[must_use]
    pub fn wire(&self) -> Option<&WireError> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn what_unwrap_shows_can_be_read() {
        let error = Error::Timeout { last: "closed".to_owned(), unknown: true };
        assert_eq!(
            format!("{error:?}"),
            "[S103] no node answered in time (closed); a write may have been applied"
        );
        assert_eq!(format!("{:?}", Error::NoContactPoint), "[S903] no contact point was given");
    }
}
