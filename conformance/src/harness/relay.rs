//! Relay: connections to a server that can stop reading, and be torn.
//!
//! Owns: the sockets in between. May use: tokio, the kernel's table of sockets. Never: changes what it carries, or ends
//! a connection to the server other than by a reset.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::background::Background;

/// The kernel acknowledges on a connection what it has received after a fifth of a second at the latest.
const ACKNOWLEDGED: Duration = Duration::from_millis(250);

/// Where clients of a server may connect instead.
pub struct Relay {
    address: SocketAddr,
    server: SocketAddr,
    reads: watch::Sender<bool>,
    ends: Arc<Mutex<Vec<u16>>>,
    _carrying: Background<()>,
}

// === impl Relay ===

impl Relay {
    /// To this server. When the value is dropped, every connection is reset.
    pub async fn to(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (reads, reading) = watch::channel(true);
        let ends: Arc<Mutex<Vec<u16>>> = Arc::default();
        let carrying = Background::start(accept(listener, server, reading, Arc::clone(&ends)));
        Ok(Self { address, server, reads, ends, _carrying: carrying })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it reads from now on what the server sends.
    pub fn read(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// How many bytes the kernel has taken from the server that were not read yet, while nothing is read.
    ///
    /// What has been received and not been acknowledged yet stands in the queues of both ends: it is counted once it
    /// stands in one. As nothing is read, what is counted meanwhile can only be more.
    pub async fn unread(&self) -> anyhow::Result<u64> {
        let mut unread = self.queued()?;
        loop {
            tokio::time::sleep(ACKNOWLEDGED).await;
            let former = std::mem::replace(&mut unread, self.queued()?);
            if former == unread {
                return Ok(unread);
            }
        }
    }

    /// The same by the queues of both ends as they are.
    fn queued(&self) -> anyhow::Result<u64> {
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unread = 0;
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, _, queues, ..] = words[..] else { anyhow::bail!("{line}") };
            let port = |address: &str| {
                let port = address.rsplit(':').next().context("an address")?;
                anyhow::Ok(u16::from_str_radix(port, 16)?)
            };
            let (local, remote) = (port(local)?, port(remote)?);
            let (sent, received) = queues.split_once(':').context("two queues")?;
            if local == self.server.port() && ends.contains(&remote) {
                unread += u64::from_str_radix(sent, 16)?;
            } else if remote == self.server.port() && ends.contains(&local) {
                unread += u64::from_str_radix(received, 16)?;
            }
        }
        Ok(unread)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, reading: watch::Receiver<bool>, ends: Arc<Mutex<Vec<u16>>>) {
    let mut carried = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                carried.push(carry(client, server, reading.clone(), Arc::clone(&ends)));
            }
            // Whoever it was for sees that it has ended.
            Some(_) = carried.next() => {}
        }
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut reading: watch::Receiver<bool>,
    ends: Arc<Mutex<Vec<u16>>>,
) -> anyhow::Result<()> {
    let server = TcpStream::connect(server).await?;
    server.set_zero_linger()?;
    ends.lock().unwrap_or_else(PoisonError::into_inner).push(server.local_addr()?.port());
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            until(&mut reading, true).await?;
            tokio::select! {
                stopped = until(&mut reading, false) => stopped?,
                count = from_server.read(&mut buffer) => match count? {
                    0 => return anyhow::Ok(()),
                    count => to_client.write_all(&buffer[..count]).await?,
                },
            }
        }
    };
    tokio::select! {
        forth = tokio::io::copy(&mut from_client, &mut to_server) => drop(forth?),
        carried = back => carried?,
    }
    Ok(())
}

async fn until(reading: &mut watch::Receiver<bool>, reads: bool) -> anyhow::Result<()> {
    Ok(reading.wait_for(|now| *now == reads).await.map(drop)?)
}
