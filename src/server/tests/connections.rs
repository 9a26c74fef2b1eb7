//! Connections that say, take and note what a test wants of them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tonic::transport::server::Connected;

/// A connection that counts what is written, and takes so much at once.
pub(super) struct Counting<C> {
    connection: C,
    writes: Arc<AtomicUsize>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Counting<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, room)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counting<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

impl<C> Connected for Counting<C> {
    type ConnectInfo = &'static str;

    fn connect_info(&self) -> Self::ConnectInfo {
        "the peer"
    }
}

pub(super) fn counting(connection: DuplexStream) -> (Counting<DuplexStream>, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    (Counting { connection, writes: Arc::clone(&writes) }, writes)
}

/// A connection that takes nothing for now.
pub(super) struct Stuck(pub(super) Mutex<VecDeque<Poll<usize>>>);

impl AsyncRead for Stuck {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let next = self.0.lock().expect("no panic").pop_front();
        next.unwrap_or(Poll::Pending).map(|count| Ok(count.min(bytes.len())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection that is not read any more once it is shut, and counts what was read.
pub(super) struct Shut {
    pub(super) connection: DuplexStream,
    /// So many bytes are read at most.
    pub(super) room: usize,
    pub(super) read: Arc<AtomicUsize>,
}

impl AsyncRead for Shut {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.load(Ordering::SeqCst) >= self.room {
            return Poll::Pending;
        }
        let before = room.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, room);
        self.read.fetch_add(room.filled().len() - before, Ordering::SeqCst);
        read
    }
}

impl AsyncWrite for Shut {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// A peer that says the second part when the answer to the first has begun, and wakes nobody for that.
pub(super) struct Quiet {
    pub(super) says: [&'static [u8]; 2],
    pub(super) begun: Arc<AtomicUsize>,
}

impl AsyncRead for Quiet {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let heard = self.begun.load(Ordering::SeqCst) > 0;
        let [first, second] = &mut self.says;
        let says = if first.is_empty() && heard { second } else { first };
        if says.is_empty() {
            return Poll::Pending;
        }
        let (now, later) = says.split_at(says.len().min(room.remaining()));
        room.put_slice(now);
        *says = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connected for Quiet {
    type ConnectInfo = &'static str;

    fn connect_info(&self) -> Self::ConnectInfo {
        "the peer"
    }
}

/// Where the slices of one write lie, and how long they are.
pub(super) type Places = Vec<(usize, usize)>;

/// A connection that notes where what it is given lies.
#[derive(Default)]
pub(super) struct Noting(pub(super) Arc<Mutex<Vec<Places>>>);

impl AsyncRead for Noting {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Noting {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let places = slices.iter().map(|slice| (slice.as_ptr() as usize, slice.len())).collect();
        self.0.lock().expect("no panic").push(places);
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
