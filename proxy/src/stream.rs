//! A client's socket, which notes what happens on it for those who watch the time.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::activity::Activity;
use crate::gathered::{MOST, gathered};

/// What HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Pieces of what nobody will answer that are read at the end of a connection.
const MOST_UNREAD: usize = 16;

/// What a client's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// The socket of a client.
#[derive(Debug)]
pub(crate) struct ClientStream {
    read: OwnedReadHalf,
    /// Shared with who waits for the client to leave.
    write: Arc<OwnedWriteHalf>,
    /// The first bytes, which were read to see what they are, and how many of them were given out.
    first: [u8; PREFACE.len()],
    given: usize,
    read_ahead: usize,
    activity: Arc<Activity>,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        let (read, write) = stream.into_split();
        Self {
            read,
            write: Arc::new(write),
            first: [0; PREFACE.len()],
            given: 0,
            read_ahead: 0,
            activity,
        }
    }

    /// The half that says when the client left.
    pub(crate) fn write_half(&self) -> Arc<OwnedWriteHalf> {
        Arc::clone(&self.write)
    }

    /// Reads until it is clear whether this is HTTP/2.
    ///
    /// # Errors
    /// The client left before it was.
    pub(crate) async fn version(&mut self) -> io::Result<Version> {
        while self.read_ahead < PREFACE.len() {
            let Some(rest) = self.first.get_mut(self.read_ahead..) else {
                break;
            };
            let count = self.read.read(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.activity.received();
            self.read_ahead += count;
            if !PREFACE.starts_with(self.ahead()) {
                return Ok(Version::Http1);
            }
        }
        Ok(Version::Http2)
    }

    /// What was read ahead.
    fn ahead(&self) -> &[u8] {
        self.first.get(..self.read_ahead).unwrap_or_default()
    }

    fn tcp(&self) -> &TcpStream {
        self.write.as_ref().as_ref()
    }

    /// Writes as much as the socket takes.
    fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.tcp().poll_write_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    self.activity.write_is_stalled();
                    return Poll::Pending;
                }
            }
            match write(self.tcp()) {
                // The readiness was an old one; it is cleared by now.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.activity.wrote();
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given < self.read_ahead {
            let rest = self.ahead().get(self.given..).unwrap_or_default();
            let count = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..count).unwrap_or_default());
            self.given += count;
            // With what follows them, or whoever parses the request would find too little of it and make room for more. An
            // end or an error is found again by the next read.
            let before = buf.filled().len();
            let _ = Pin::new(&mut self.read).poll_read(cx, buf);
            if buf.filled().len() > before {
                self.activity.received();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |tcp| tcp.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match gathered(bufs, &mut [0; MOST]) {
            Some(all) => self.poll_write_by(cx, |tcp| tcp.try_write(all)),
            None => self.poll_write_by(cx, |tcp| tcp.try_write_vectored(bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = SockRef::from(self.tcp()).shutdown(Shutdown::Write);
        // What is unread when the socket is closed makes the kernel reset the connection, and drop what it has not sent yet.
        let mut unread = [0; 4096];
        for _ in 0..MOST_UNREAD {
            if !matches!(self.tcp().try_read(&mut unread), Ok(1..)) {
                break;
            }
        }
        Poll::Ready(shut)
    }
}
