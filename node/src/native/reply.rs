//! What a request is answered, until it is sent.

use std::sync::Arc;

use bytes::Bytes;
use starling_protocol::{Response, WireError};

use crate::overload::Held;

/// An answer and its operand.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The header.
    pub response: Response,
    /// The operand: the siblings of a value.
    pub operand: Bytes,
    /// The memory of the states behind it, until it is sent.
    _held: Option<Arc<Held>>,
}

impl Reply {
    pub(super) fn of(response: Response) -> Self {
        Self::with_operand(response, Bytes::new())
    }

    pub(super) fn with_operand(response: Response, operand: Bytes) -> Self {
        Self { response, operand, _held: None }
    }

    pub(super) fn holding(response: Response, operand: Bytes, held: Arc<Held>) -> Self {
        Self { response, operand, _held: Some(held) }
    }

    pub(crate) fn error(error: WireError) -> Self {
        Self::of(Response::Error(error))
    }
}

impl From<Result<Response, WireError>> for Reply {
    fn from(result: Result<Response, WireError>) -> Self {
        result.map_or_else(Self::error, Self::of)
    }
}
