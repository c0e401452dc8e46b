//! A TCP stream that tells when bytes have come, and that has read all there is when it is asked to.
//!
//! A TLS record and a WebSocket frame may take a slow line longer than a keep alive, and are nothing to who reads
//! above them until they are complete. So it is said here, below both, that the client is alive.
//!
//! The runtime reads a socket when it has been told of new bytes, which takes longer the more it has to do, and reads
//! nothing for a task that has had its share. Where a connection is about to be judged, [`WakeFlag::set_asks_kernel`] has
//! the kernel asked instead (`what_the_runtime_has_not_noticed_is_read`): once, so that a flood of what is nothing above
//! ends the task's turn all the same.
//!
//! While a TLS handshake is under way, a write to a client that has gone is no error: what the client sent with its part of the
//! handshake is still to be read (`what_a_client_sends_before_it_goes_is_read`). The next write says it.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::permits::WakeFlag;

/// The stream; its connection asks [`WakeFlag::take_heard`].
pub(crate) struct Heard<S> {
    stream: S,
    wake_flag: Arc<WakeFlag>,
}

impl<S> Heard<S> {
    pub(crate) fn new(stream: S, wake_flag: Arc<WakeFlag>) -> Self {
        Self { stream, wake_flag }
    }

    pub(crate) fn begin_handshake(&self) {
        self.wake_flag.set_in_handshake(true);
    }

    pub(crate) fn end_handshake(&self) {
        self.wake_flag.set_in_handshake(false);
    }

    /// What the handshake is told of a write of so many bytes.
    #[inline]
    fn wrote(&self, written: io::Result<usize>, len: usize) -> io::Result<usize> {
        if let (Ok(bytes), Some(traffic)) = (&written, self.wake_flag.traffic()) {
            traffic.sent(*bytes);
        }
        match written {
            Err(error) if self.wake_flag.in_handshake() && is_peer_gone(&error) => Ok(len),
            written => written,
        }
    }

    /// What it reads and writes.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsRawFd> AsRawFd for Heard<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Reads what the kernel has. An end is an end, as with any read.
fn read_from_kernel(socket: &impl AsFd, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let socket = SockRef::from(socket);
    match (&*socket).read(buffer.initialize_unfilled()) {
        Ok(read) => {
            buffer.advance(read);
            Poll::Ready(Ok(()))
        }
        Err(error) if is_none_yet(&error) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

fn is_none_yet(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

fn is_peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() && self.wake_flag.take_asks_kernel() {
            read = read_from_kernel(&self.stream, buffer);
        }
        ready!(read)?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.wake_flag.hear();
            if let Some(traffic) = self.wake_flag.traffic() {
                traffic.received(read);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.wrote(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        let len = slices.iter().map(|slice| slice.len()).sum();
        Poll::Ready(self.wrote(written, len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_the_runtime_has_not_noticed_is_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let wake_flag = Arc::new(WakeFlag::default());
        let mut heard = Heard::new(stream, wake_flag.clone());
        let mut read = || {
            let mut bytes = [0; 8];
            let mut buffer = ReadBuf::new(&mut bytes);
            let mut cx = Context::from_waker(Waker::noop());
            match Pin::new(&mut heard).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(read) => Some(read.map(|()| buffer.filled().to_vec()).unwrap()),
                Poll::Pending => None,
            }
        };
        assert_eq!(read(), None);
        // Nothing is awaited from here on, so the runtime notices nothing.
        peer.try_write(b"word").unwrap();
        assert_eq!(read(), None);
        assert!(!wake_flag.take_heard());
        wake_flag.set_asks_kernel(true);
        assert_eq!(read(), Some(b"word".to_vec()));
        assert!(wake_flag.take_heard());
        peer.try_write(b"more").unwrap();
        assert_eq!(read(), None, "it is asked once");
        wake_flag.set_asks_kernel(true);
        assert_eq!(read(), Some(b"more".to_vec()));
        drop(peer);
        wake_flag.set_asks_kernel(true);
        assert_eq!(read(), Some(Vec::new()), "the end");
    }
}
