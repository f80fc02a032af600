//! One half of a stream at the end that connected, behind a gate.
//!
//! It buffers nothing: what a cut holds back waits in the network's own buffers.

use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Faults, Gate, Side};

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A half that is only there to be dropped later.
pub(super) enum Kept {
    Reader(#[expect(dead_code, reason = "dropping it is its use")] Reader),
    Writer(#[expect(dead_code, reason = "dropping it is its use")] Writer),
}

impl From<Reader> for Kept {
    fn from(reader: Reader) -> Kept {
        Kept::Reader(reader)
    }
}

impl From<Writer> for Kept {
    fn from(writer: Writer) -> Kept {
        Kept::Writer(writer)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Reader(_) => "reader",
            Kept::Writer(_) => "writer",
        })
    }
}

/// See the module.
pub(super) struct Half<T: Into<Kept>> {
    faults: Faults,
    stream: u64,
    /// None only while it is dropped.
    inner: Option<T>,
}

impl<T: Into<Kept> + Unpin> Half<T> {
    pub(super) fn new(faults: Faults, stream: u64, inner: T) -> Half<T> {
        Half { faults, stream, inner: Some(inner) }
    }

    /// The inner half, once the gate is open.
    fn through(&mut self, side: Side, context: &Context<'_>) -> Poll<io::Result<Pin<&mut T>>> {
        match self.faults.gate(self.stream, side, context) {
            Gate::Shut => Poll::Pending,
            Gate::Severed => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Gate::Open => {
                let inner = self.inner.as_mut().expect("only dropping takes it");
                Poll::Ready(Ok(Pin::new(inner)))
            }
        }
    }
}

impl AsyncRead for Half<Reader> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = std::task::ready!(self.get_mut().through(Side::Reader, context))?;
        inner.poll_read(context, buffer)
    }
}

impl AsyncWrite for Half<Writer> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = std::task::ready!(self.get_mut().through(Side::Writer, context))?;
        inner.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = std::task::ready!(self.get_mut().through(Side::Writer, context))?;
        inner.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = std::task::ready!(self.get_mut().through(Side::Writer, context))?;
        inner.poll_shutdown(context)
    }
}

impl<T: Into<Kept>> Drop for Half<T> {
    fn drop(&mut self) {
        let inner = self.inner.take().expect("it is dropped once");
        self.faults.drop_half(self.stream, inner.into());
    }
}
