//! Orders: what a peer is told on its standard input.
//!
//! Owns: the form of a line. May use: standard input. Never: answers; whoever has done what was asked does.

use std::io::BufRead;

use anyhow::Context;
use futures::Stream;

/// A load assignment is to carry a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Which one.
    pub index: usize,
    /// The number.
    pub number: u32,
}

/// The orders until the end of standard input.
pub fn orders() -> impl Stream<Item = anyhow::Result<Order>> + Unpin {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    // Reading standard input blocks, so it has a thread, which ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line.map_err(anyhow::Error::from).and_then(|line| line.parse());
            if sender.blocking_send(order).is_err() {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "change {} {}", self.index, self.number)
    }
}

impl std::str::FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut words = text.strip_prefix("change ").with_context(|| format!("{text:?} is no order"))?.split(' ');
        let mut number = || words.next().context("an order has two numbers");
        Ok(Self { index: number()?.parse()?, number: number()?.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_is_written() {
        let order = Order { index: 3, number: 7 };
        assert_eq!(order.to_string().parse::<Order>().expect("an order"), order);
        assert!("change 3".parse::<Order>().is_err());
        assert!("stop".parse::<Order>().is_err());
    }
}
