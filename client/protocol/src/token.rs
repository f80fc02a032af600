//! The causal context as a client holds it: opaque bytes that only the cluster can read.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A sealed causal context of one key. Text form: base64url without padding.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContextToken(pub Bytes);

/// A text is no context token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a context is written in base64url without padding: {reason}")]
pub struct TokenTextError {
    reason: String,
}

impl ContextToken {
    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// Reads the text form. Whether the cluster accepts the token is another matter.
    ///
    /// # Errors
    /// Text that is no base64url.
    pub fn from_text(text: &str) -> Result<Self, TokenTextError> {
        let bytes = URL_SAFE_NO_PAD.decode(text);
        let bytes = bytes.map_err(|error| TokenTextError { reason: error.to_string() })?;
        Ok(Self(Bytes::from(bytes)))
    }
}

impl fmt::Debug for ContextToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ContextToken({})", self.to_text())
    }
}
