//! Ports: free ports for the servers that this process starts, or has others start.
//!
//! Owns: which ports are spoken for, across all processes of this user, by locked files in the temporary
//! directory. May use: the kernel's own range of ephemeral ports. Never: hands out a port that an outgoing
//! connection could take before the server that it is meant for has bound it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use rand::Rng;

/// The ports that are tried, less the kernel's ephemeral ones.
const CANDIDATES: RangeInclusive<u16> = 10_240..=65_000;
/// How often a port is tried before giving up.
const TRIES: usize = 10_000;

/// A port that nobody else is given while this value lives; a process that dies gives its ports back.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

// === impl Port ===

impl Port {
    /// A free port.
    pub fn reserve() -> io::Result<Self> {
        let directory = directory();
        std::fs::create_dir_all(&directory)?;
        let ephemeral = ephemeral();
        for _ in 0..TRIES {
            let number = rand::rng().random_range(CANDIDATES);
            if ephemeral.contains(&number) {
                continue;
            }
            let lock =
                File::options().create(true).truncate(false).write(true).open(directory.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port was found"))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// This port on 127.0.0.1.
    pub fn loopback(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("chancery-ports-{}", rustix::process::getuid().as_raw()))
}

/// The ports that the kernel gives to outgoing connections.
fn ephemeral() -> RangeInclusive<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse().ok());
    bounds.next().unwrap_or(32_768)..=bounds.next().unwrap_or(60_999)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports: Vec<Port> = (0..200).map(|_| Port::reserve().expect("there are free ports")).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        for port in &ports {
            assert!(!ephemeral().contains(&port.number()));
            TcpListener::bind(port.loopback()).expect("a reserved port is free");
        }
    }

    #[test]
    fn a_port_is_spoken_for_until_it_is_dropped() {
        let port = Port::reserve().expect("there are free ports");
        let path = directory().join(port.number().to_string());
        let other = File::options().write(true).open(path).expect("its file is there");
        assert!(other.try_lock().is_err());
        drop(port);
        assert!(other.try_lock().is_ok());
    }
}
