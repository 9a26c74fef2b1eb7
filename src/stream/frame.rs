//! gRPC messages as frames of an HTTP body.
//!
//! Owns: the framing: five bytes, then the message in the chunks that it is made of; trailers at the end.
//! May use: http-body, tonic's status. Never: copies a resource.

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

use super::session::{Protocol, Request, Response};

/// The frames of a response, last first: to be popped.
pub(super) fn of_response(response: Response) -> Vec<Bytes> {
    let length = response.head.len() + response.entries.iter().map(Bytes::len).sum::<usize>();
    let length = u32::try_from(length).expect("the resources of one type fit into 4 GiB");
    let mut head = BytesMut::with_capacity(5 + response.head.len());
    head.put_u8(0);
    head.put_u32(length);
    head.put_slice(&response.head);
    let mut frames = response.entries;
    frames.reverse();
    frames.push(head.freeze());
    frames
}

/// The last frame of a stream.
pub(super) fn of_status(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}

/// Decodes the requests of a protocol.
#[derive(Debug)]
pub(super) struct RequestDecoder(pub(super) Protocol);

impl Decoder for RequestDecoder {
    type Item = Request;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Request>, Status> {
        let request = match self.0 {
            Protocol::Sotw => prost::Message::decode(buffer).map(Request::Sotw),
            Protocol::Delta => prost::Message::decode(buffer).map(Request::Delta),
        };
        request.map(Some).map_err(|_| Status::invalid_argument("the request cannot be decoded"))
    }
}
