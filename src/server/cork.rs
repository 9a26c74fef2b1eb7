//! A connection whose small writes are gathered.
//!
//! Owns: the bytes between HTTP/2 and the connection. May use: tokio's I/O. Never: keeps anything back once its
//! owner has flushed, or copies a large write.
//!
//! HTTP/2 flushes after each frame of data; the change of one resource is many small frames on a connection with many
//! streams. To copy them together costs less than a system call for each; what is large goes as it is, behind what was
//! gathered before it. Whoever drives the connection knows when nothing more comes, and flushes then.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much is gathered.
const ROOM: usize = 32 * 1024;
/// Writes from this size on are large.
const LARGE: usize = 4 * 1024;

/// One of the two handles of a corked connection: one is given to HTTP/2, the other one flushes.
pub(super) struct Corked<C>(Arc<Mutex<Gathering<C>>>);

struct Gathering<C> {
    connection: C,
    /// What was not written yet, after `written` bytes that were.
    bytes: Vec<u8>,
    written: usize,
    progress: Progress,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// So many bytes were read,
    pub(super) read: u64,
    /// and so many written.
    pub(super) written: u64,
    /// The last write was not taken.
    pub(super) blocked: bool,
}

// === impl Corked ===

impl<C: AsyncRead + AsyncWrite + Unpin> Corked<C> {
    /// Both handles.
    pub(super) fn pair(connection: C) -> (Self, Self) {
        let shared = Arc::new(Mutex::new(Gathering {
            connection,
            bytes: Vec::new(),
            written: 0,
            progress: Progress::default(),
        }));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    /// Writes what was gathered. If that cannot be done now, the context is woken when more of it can.
    pub(super) fn poll_uncork(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.lock();
        ready!(gathering.poll_write_out(context))?;
        Pin::new(&mut gathering.connection).poll_flush(context)
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        self.lock().progress
    }

    fn lock(&self) -> MutexGuard<'_, Gathering<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Progress ===

impl Progress {
    fn after(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked = written.is_pending();
        if let Poll::Ready(Ok(count)) = &written {
            self.written += *count as u64;
        }
        written
    }
}

// === impl Gathering ===

impl<C: AsyncWrite + Unpin> Gathering<C> {
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            let written = Pin::new(&mut self.connection).poll_write(context, rest);
            match ready!(self.progress.after(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Makes room for a write of so many bytes if it is one that is gathered, and says whether it is.
    fn poll_gathers(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if bytes < LARGE && self.bytes.len() + bytes > ROOM {
            ready!(self.poll_write_out(context))?;
        }
        Poll::Ready(Ok(bytes < LARGE))
    }

    /// Writes as it is what is not gathered, together with what was gathered before; says how much of the former.
    fn poll_pass(&mut self, slices: &[io::IoSlice<'_>], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let before = self.bytes.len() - self.written;
            let gathered = io::IoSlice::new(&self.bytes[self.written..]);
            let all: Vec<_> =
                std::iter::once(gathered).chain(slices.iter().copied()).skip(usize::from(before == 0)).collect();
            let written = Pin::new(&mut self.connection).poll_write_vectored(context, &all);
            let count = ready!(self.progress.after(written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if count < before {
                self.written += count;
                continue;
            }
            self.clear();
            if count > before {
                return Poll::Ready(Ok(count - before));
            }
        }
    }

    /// A connection on which nothing happens holds no room.
    fn clear(&mut self) {
        self.bytes = Vec::new();
        self.written = 0;
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            // Most often it is one frame; a connection with many soon has room for them.
            self.bytes.reserve_exact(bytes.len().next_power_of_two().min(ROOM));
        }
        self.bytes.extend_from_slice(bytes);
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Corked<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = room.filled().len();
        ready!(Pin::new(&mut gathering.connection).poll_read(context, room))?;
        gathering.progress.read += (room.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Corked<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathering = self.lock();
        if ready!(gathering.poll_gathers(bytes.len(), context))? {
            gathering.gather(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        gathering.poll_pass(&[io::IoSlice::new(bytes)], context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.lock();
        let total = slices.iter().map(|slice| slice.len()).sum();
        if ready!(gathering.poll_gathers(total, context))? {
            for slice in slices {
                gathering.gather(slice);
            }
            return Poll::Ready(Ok(total));
        }
        gathering.poll_pass(slices, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Keeps what is gathered: the other handle flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.lock();
        ready!(gathering.poll_write_out(context))?;
        Pin::new(&mut gathering.connection).poll_shutdown(context)
    }
}
