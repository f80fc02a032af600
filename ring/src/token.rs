//! Places on the ring.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place on the ring: any i64, as in Cassandra. The ring runs from [`Token::MIN`] up to
/// [`Token::MAX`] and wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub i64);

impl Token {
    /// The first place.
    pub const MIN: Self = Self(i64::MIN);
    /// The last place.
    pub const MAX: Self = Self(i64::MAX);
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
