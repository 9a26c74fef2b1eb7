//! Resolver: a name server that takes its time.
//!
//! Owns: its socket; every name has the address 127.0.0.1. May use: tokio. Never: answers at once, or anybody else than
//! this machine.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::UdpSocket;

use super::background::Background;

/// What a message begins with.
const HEADER: usize = 12;
/// Type and class of a question.
const A: [u8; 4] = [0, 1, 0, 1];

/// A running name server. It ends when the value is dropped.
#[derive(Debug)]
pub struct Resolver {
    address: SocketAddr,
    _serving: Background<()>,
}

// === impl Resolver ===

impl Resolver {
    /// A name server that answers after this time.
    pub async fn after(delay: Duration) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        Ok(Self { address, _serving: Background::start(serve(socket, delay)) })
    }

    /// Where it listens, by UDP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(socket: UdpSocket, delay: Duration) {
    let mut pending = FuturesUnordered::new();
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            Ok((length, from)) = socket.recv_from(&mut buffer) => {
                if let Some(answer) = answer(&buffer[..length]) {
                    pending.push(async move {
                        tokio::time::sleep(delay).await;
                        (answer, from)
                    });
                }
            }
            // Who asks again was not answered.
            Some((answer, from)) = pending.next() => {
                _ = socket.send_to(&answer, from).await;
            }
        }
    }
}

/// What a query with one question is answered: one address for a question for one, which lives for an hour.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?;
    let end = HEADER + name.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(HEADER..end + 4)?;
    let is_for_address = question.ends_with(&A);
    // A response, recursion available; one question, its answer, nothing else.
    let counts = [0x81, 0x80, 0, 1, 0, u8::from(is_for_address), 0, 0, 0, 0];
    let mut answer = [query.get(..2)?, &counts, question].concat();
    if is_for_address {
        let pointer_to_name = [0xc0, HEADER as u8];
        let (lifetime, length) = ([0, 0, 0x0e, 0x10], [0, 4]);
        answer.extend([&pointer_to_name[..], &A, &lifetime, &length, &[127, 0, 0, 1]].concat());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_an_address_has_one_answer_and_any_other_none() {
        let query = |kind: u8| [&[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01a\0", &[0, kind, 0, 1]].concat();
        let expected = [
            &[7, 8, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
            b"\x01a\0\0\x01\0\x01",
            &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 127, 0, 0, 1],
        ];
        assert_eq!(answer(&query(1)), Some(expected.concat()));
        let none = [&[7, 8, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01a\0\0\x1c\0\x01"];
        assert_eq!(answer(&query(28)), Some(none.concat()));
        for length in 0..query(1).len() {
            assert_eq!(answer(&query(1)[..length]), None);
        }
    }
}
