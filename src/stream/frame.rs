//! gRPC messages as frames of an HTTP body.
//!
//! Owns: the framing: five bytes, then the message; trailers at the end. May use: http-body, tonic's status. Never:
//! copies a message that lies in one chunk, or keeps the room of one that was read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::Status;

use super::lobby::Guest;

/// What stands before a message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// As much room is made for what has been announced.
const AHEAD: usize = 64 * 1024;

/// A reader is given no more at once: what it does not take is told from what it takes slowly.
const SLICE: usize = 64 * 1024;

/// What is left of a response, given in slices.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    slices: Bytes,
    more: std::vec::IntoIter<Bytes>,
}

/// The messages of a request's body.
pub(super) struct Messages<B> {
    body: Pin<Box<B>>,
    max_bytes: usize,
    /// What was received and not read yet.
    rest: Bytes,
    /// The start of a frame that is not complete.
    partial: BytesMut,
    /// There while it is not known who says this.
    guest: Option<Guest>,
}

/// The start of the frame of a message that begins with `head`; `more` bytes of it follow.
pub(super) fn head(head: &[u8], more: usize) -> Bytes {
    let length = u32::try_from(head.len() + more).expect("the resources of one type fit into 4 GiB");
    let mut frame = BytesMut::with_capacity(PREFIX + head.len());
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(head);
    frame.freeze()
}

/// Those who are not let in yet say more together than is kept of them.
pub(super) fn too_much_unknown() -> Status {
    Status::resource_exhausted("the streams of this connection that are not let in yet say too much at once")
}

/// The last frame of a stream.
pub(super) fn of_status(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}

// === impl Chunks ===

impl Chunks {
    pub(super) fn new(head: Bytes, more: Vec<Bytes>) -> Self {
        Self { slices: head, more: more.into_iter() }
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.slices.is_empty() {
            self.slices = self.more.next()?;
        }
        if self.slices.len() > SLICE {
            return Some(self.slices.split_to(SLICE));
        }
        Some(std::mem::take(&mut self.slices))
    }
}

// === impl Messages ===

impl<B> Messages<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The messages of `body`, none larger than `max_bytes`.
    pub(super) fn new(body: B, max_bytes: usize) -> Self {
        Self { body: Box::pin(body), max_bytes, rest: Bytes::new(), partial: BytesMut::new(), guest: None }
    }

    /// The same of somebody who is not known yet: what such make us hold is no more together than one message may be.
    #[must_use]
    pub(super) fn of(mut self, guest: Guest) -> Self {
        self.guest = Some(guest);
        self
    }

    /// It is known now who says this.
    pub(super) fn let_in(&mut self) {
        self.guest = None;
    }

    /// The next message; `None` when the peer has closed its half.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let (held, most) = (self.partial.len(), self.max_bytes.saturating_add(PREFIX));
            if self.guest.as_mut().is_some_and(|guest| !guest.holds(held, most)) {
                return Poll::Ready(Err(too_much_unknown()));
            }
            match ready!(self.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => self.rest = chunk,
                    // Trailers: nothing follows them.
                    Err(_) => return Poll::Ready(Ok(None)),
                },
                Some(Err(error)) => {
                    let status = Status::from_error(error.into());
                    let gone = status.code() == tonic::Code::Cancelled;
                    return Poll::Ready(if gone { Ok(None) } else { Err(status) });
                }
                None if self.partial.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Status::internal("the stream ends within a message"))),
            }
        }
    }

    /// A message out of what was received; if there is none, all of that is in `partial`.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if self.partial.is_empty()
            && let Some(end) = self.end_of(&self.rest)?
            && end <= self.rest.len()
        {
            return Ok(Some(self.rest.split_to(end).slice(PREFIX..)));
        }
        loop {
            let end = self.end_of(&self.partial)?.unwrap_or(PREFIX);
            let missing = end - self.partial.len();
            let more = self.rest.split_to(missing.min(self.rest.len()));
            // Not the whole of what is announced: it costs a peer nothing to announce much.
            self.partial.reserve(missing.min(more.len().max(AHEAD)));
            self.partial.extend_from_slice(&more);
            if more.len() < missing {
                return Ok(None);
            }
            if self.end_of(&self.partial)? == Some(end) {
                self.partial.advance(PREFIX);
                return Ok(Some(std::mem::take(&mut self.partial).freeze()));
            }
        }
    }

    /// Where the frame ends that begins here, if that can be told yet.
    fn end_of(&self, mut frame: &[u8]) -> Result<Option<usize>, Status> {
        if frame.len() < PREFIX {
            return Ok(None);
        }
        match frame.get_u8() {
            0 => {}
            1 => return Err(Status::internal("the message is compressed, and no grpc-encoding says how")),
            flag => return Err(Status::internal(format!("the compression flag of a message is {flag}"))),
        }
        let (length, limit) = (frame.get_u32() as usize, self.max_bytes);
        if length > limit {
            return Err(Status::out_of_range(format!("the message has {length} bytes, the limit is {limit}")));
        }
        Ok(Some(PREFIX + length))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tonic::Code;

    use super::*;

    type Read = (Vec<Vec<u8>>, Result<(), Code>);

    /// The messages of a body of these chunks, and its end.
    fn read(chunks: Vec<Bytes>) -> Read {
        let frames = futures::stream::iter(chunks).map(|chunk| Ok::<_, Status>(Frame::data(chunk)));
        let mut messages = Messages::new(http_body_util::StreamBody::new(frames), 10);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut read = Vec::new();
        loop {
            match messages.poll_next(&mut context) {
                Poll::Ready(Ok(Some(message))) => read.push(message.to_vec()),
                Poll::Ready(Ok(None)) => return (read, Ok(())),
                Poll::Ready(Err(status)) => return (read, Err(status.code())),
                Poll::Pending => panic!("the chunks are there"),
            }
        }
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let bytes = Bytes::from_static(b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x0a0123456789\0\0\0\0\x01x");
        let expected: Read = (vec![b"abc".into(), vec![], b"0123456789".into(), b"x".into()], Ok(()));
        for size in 1..=bytes.len() {
            let chunks = (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size)));
            assert_eq!(read(chunks.collect()), expected, "chunks of {size}");
        }
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for (bytes, code) in [
            (&b"\0\0\0\0\x0b"[..], Code::OutOfRange),
            (b"\0\xff\xff\xff\xff", Code::OutOfRange),
            (b"\x01\0\0\0\x01x", Code::Internal),
            (b"\x02\0\0\0\x01x", Code::Internal),
            (b"\0\0\0\0\x02x", Code::Internal),
            (b"\0\0", Code::Internal),
        ] {
            assert_eq!(read(vec![Bytes::from_static(bytes)]), (vec![], Err(code)), "{bytes:?}");
        }
    }

    #[test]
    fn a_response_is_given_in_slices_of_the_same_memory() {
        let (head, entry) = (Bytes::from_static(b"head"), Bytes::from(vec![7; 2 * SLICE + 1]));
        let slices: Vec<Bytes> = Chunks::new(head.clone(), vec![entry.clone(), head]).collect();
        assert_eq!(slices.iter().map(Bytes::len).collect::<Vec<_>>(), [4, SLICE, SLICE, 1, 4]);
        assert_eq!(slices[2].as_ptr(), entry[SLICE..].as_ptr());
    }

    #[test]
    fn a_message_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"\0\0\0\0\x01a\0\0\0\0\x01b");
        let frames = futures::stream::iter([Ok::<_, Status>(Frame::data(chunk.clone()))]);
        let mut messages = Messages::new(http_body_util::StreamBody::new(frames), 10);
        let mut context = Context::from_waker(std::task::Waker::noop());
        for at in [5, 11] {
            let Poll::Ready(Ok(Some(message))) = messages.poll_next(&mut context) else { panic!("a message") };
            assert_eq!(message.as_ptr(), chunk[at..].as_ptr());
        }
    }
}
