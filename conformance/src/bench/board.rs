//! Board: what was changed, and what every client received of it.
//!
//! Owns: the numbers of changes, when each was made, how long it took to each client, and every fault. May use: the
//! catalogue. Never: forgives: a wrong, missing, repeated or backward resource makes the run void.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use tokio::sync::Notify;

use super::catalogue::{Catalogue, Wrong};
use super::wire::{ENDPOINTS, Entry, Malformed, own_name};

/// How many faults are kept in words.
const KEPT: usize = 5;
/// What a changed resource that is no load assignment carries before its number of eight hexadecimal digits.
pub const MARK: &str = "chg-";

/// Why a run is void.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What was sent cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Not what it should be.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// A client holds a later one already.
    #[error("{name} went back from change {from} to change {to}")]
    Backwards {
        /// The resource.
        name: String,
        /// The change that the client had.
        from: u32,
        /// The change that it was sent.
        to: u32,
    },
    /// A client holds the same one already.
    #[error("{name} was sent twice with change {number}")]
    Repeated {
        /// The resource.
        name: String,
        /// The change.
        number: u32,
    },
    /// A change that was made to another resource, or not at all.
    #[error("{name} carries change {number}, which is not its own")]
    Foreign {
        /// The resource.
        name: String,
        /// The change.
        number: u32,
    },
    /// What was held was taken away.
    #[error("{0} was removed")]
    Removed(String),
    /// The stream or its connection ended.
    #[error("the stream has ended: {0}")]
    Ended(String),
}

/// What a resource was to the client that received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It did not have it.
    First,
    /// It carries these changes that the client did not have.
    Newer {
        /// The last change that the client had.
        after: u32,
        /// The change that it carries.
        number: u32,
    },
    /// It is what the client has.
    Again,
}

/// What one client holds.
#[derive(Debug, Default)]
pub struct Holdings {
    /// By load assignment the change that it carries, 0 for none; nothing for one that is not held.
    assignments: Vec<Option<u32>>,
    /// The same of other resources, by type and name.
    others: HashMap<(&'static str, Bytes), u32>,
}

/// Every client's progress.
#[derive(Debug)]
pub struct Board {
    catalogue: Arc<Catalogue>,
    /// Whether a server may send what a client has already, as a state-of-the-world push of a whole type does.
    whole_type: bool,
    state: Mutex<State>,
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    changes: Vec<Change>,
    /// By what was changed the numbers, ascending.
    numbers: HashMap<Option<usize>, Vec<u32>>,
    totals: Totals,
    complete: Vec<u32>,
    faults: u64,
    said: Vec<String>,
    closed: bool,
}

#[derive(Debug)]
struct Change {
    made: Instant,
    /// The load assignment that was changed; nothing for another resource.
    index: Option<usize>,
    latencies: Vec<u32>,
}

/// What all clients together have received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Responses.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Bytes of the bodies of the streams.
    pub bytes: u64,
}

// === impl Holdings ===

impl Holdings {
    /// Takes a resource of a type, which may carry any of the changes that `made` tells of: by number, the load
    /// assignment that was changed.
    fn take(
        &mut self,
        catalogue: &Catalogue,
        type_url: &'static str,
        entry: Entry<'_>,
        whole_type: bool,
        made: impl Fn(u32) -> Option<Option<usize>>,
    ) -> Result<Taken, Fault> {
        let name = if entry.name.is_empty() { own_name(entry.body)? } else { entry.name };
        let text = || String::from_utf8_lossy(name).into_owned();
        let (held, number) = if type_url == ENDPOINTS && !catalogue.is_empty() {
            self.assignments.resize(catalogue.len(), None);
            let (index, number) = catalogue.read(name, entry.body)?;
            if number > 0 && made(number) != Some(Some(index)) {
                return Err(Fault::Foreign { name: text(), number });
            }
            (self.assignments[index].replace(number), number)
        } else {
            let number = mark(entry.body);
            if number > 0 && made(number) != Some(None) {
                return Err(Fault::Foreign { name: text(), number });
            }
            let key = (type_url, Bytes::copy_from_slice(name));
            return Ok(match self.others.insert(key, number) {
                None => Taken::First,
                // What names no change may be sent again for another reason.
                Some(held) if held == number => Taken::Again,
                Some(held) if held > number => {
                    return Err(Fault::Backwards { name: text(), from: held, to: number });
                }
                Some(held) => Taken::Newer { after: held, number },
            });
        };
        match held {
            None => Ok(Taken::First),
            Some(held) if held == number && whole_type => Ok(Taken::Again),
            Some(held) if held == number => Err(Fault::Repeated { name: text(), number }),
            Some(held) if held > number => Err(Fault::Backwards { name: text(), from: held, to: number }),
            Some(held) => Ok(Taken::Newer { after: held, number }),
        }
    }
}

/// The largest number that a resource carries, 0 if none.
fn mark(body: &[u8]) -> u32 {
    let carried = body.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK.as_bytes());
    let number = |at: usize| {
        let digits = body.get(at + MARK.len()..at + MARK.len() + 8)?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    carried.filter_map(|(at, _)| number(at)).max().unwrap_or_default()
}

/// How a changed resource that is no load assignment carries its number.
pub fn marked(number: u32) -> String {
    format!("{MARK}{number:08x}")
}

// === impl Board ===

impl Board {
    /// An empty one.
    pub fn new(catalogue: Arc<Catalogue>, whole_type: bool) -> Self {
        Self { catalogue, whole_type, state: Mutex::default(), progress: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a change is made now, to a load assignment or something else, and gives it a number.
    pub fn change(&self, index: Option<usize>) -> u32 {
        let mut state = self.state();
        state.changes.push(Change { made: Instant::now(), index, latencies: Vec::new() });
        let number = u32::try_from(state.changes.len()).unwrap_or(u32::MAX);
        state.numbers.entry(index).or_default().push(number);
        number
    }

    /// Takes a resource that a client received; says whether it is the first of its name.
    pub fn take(&self, holdings: &mut Holdings, type_url: &'static str, entry: Entry<'_>) -> Result<bool, Fault> {
        let mut state = self.state();
        state.totals.resources += 1;
        let made = |number: u32| Some(state.changes.get(number.checked_sub(1)? as usize)?.index);
        match holdings.take(&self.catalogue, type_url, entry, self.whole_type, made)? {
            Taken::First => Ok(true),
            Taken::Again => Ok(false),
            Taken::Newer { after, number } => {
                // A change that was overtaken has arrived with the one that overtook it.
                let now = Instant::now();
                let State { changes, numbers, .. } = &mut *state;
                let index = changes[number as usize - 1].index;
                let of_this = numbers.get(&index).into_iter().flatten().rev().copied();
                for arrived in of_this.skip_while(|n| *n > number).take_while(|n| *n > after) {
                    let change = &mut changes[arrived as usize - 1];
                    change.latencies.push(micros(now - change.made));
                }
                drop(state);
                self.progress.notify_waiters();
                Ok(false)
            }
        }
    }

    /// Notes a response.
    pub fn response(&self) {
        self.state().totals.responses += 1;
    }

    /// Notes bytes.
    pub fn bytes(&self, bytes: usize) {
        self.state().totals.bytes += bytes as u64;
    }

    /// Notes that a client has everything that it asked for, so long after the start.
    pub fn complete(&self, after: Duration) {
        self.state().complete.push(micros(after));
        self.progress.notify_waiters();
    }

    /// Notes what makes the run void.
    pub fn fault(&self, client: usize, fault: &Fault) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.faults += 1;
        if state.said.len() < KEPT {
            state.said.push(format!("client {client}: {fault}"));
        }
        drop(state);
        self.progress.notify_waiters();
    }

    /// What follows is the end of the clients, not a fault.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// What was received so far.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// An error if the run is void.
    pub fn check(&self) -> anyhow::Result<()> {
        let state = self.state();
        ensure!(state.faults == 0, "void, {} faults: {}", state.faults, state.said.join("; "));
        Ok(())
    }

    /// Waits until this many clients have everything that they asked for; how long each took in microseconds, sorted.
    pub async fn all_complete(&self, clients: usize, within: Duration) -> anyhow::Result<Vec<u32>> {
        self.until(
            within,
            |state| (state.complete.len() >= clients).then(|| sorted(&state.complete)),
            |state| {
                format!(
                    "{} of {clients} clients have everything, {} resources came",
                    state.complete.len(),
                    state.totals.resources
                )
            },
        )
        .await
    }

    /// Waits until this many clients have a change; how long each took in microseconds, sorted.
    pub async fn arrived(&self, number: u32, clients: usize, within: Duration) -> anyhow::Result<Vec<u32>> {
        let latencies = |state: &State| sorted(&state.changes[number as usize - 1].latencies);
        self.until(
            within,
            |state| Some(latencies(state)).filter(|l| l.len() >= clients),
            |state| format!("{} of {clients} clients have change {number}", latencies(state).len()),
        )
        .await
    }

    /// How long each of the changes from `first` on took to each client, in microseconds, sorted.
    pub fn latencies(&self, first: u32) -> Vec<u32> {
        let state = self.state();
        sorted(&state.changes[first as usize - 1..].iter().flat_map(|c| c.latencies.clone()).collect::<Vec<_>>())
    }

    async fn until<T>(
        &self,
        within: Duration,
        found: impl Fn(&State) -> Option<T>,
        missing: impl Fn(&State) -> String,
    ) -> anyhow::Result<T> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            self.check()?;
            if let Some(found) = found(&self.state()) {
                return Ok(found);
            }
            if tokio::time::timeout_at(deadline, progress).await.is_err() {
                self.check()?;
                bail!("void, data is missing: after {within:?}, {}", missing(&self.state()));
            }
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn sorted(values: &[u32]) -> Vec<u32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::catalogue::{resource_name, tests::catalogue};
    use crate::bench::wire::ROUTES;

    struct Client {
        board: Board,
        holdings: Holdings,
        catalogue: Arc<Catalogue>,
    }

    impl Client {
        fn new(whole_type: bool) -> Self {
            let catalogue = Arc::new(catalogue(3, 2));
            let board = Board::new(Arc::clone(&catalogue), whole_type);
            Self { board, holdings: Holdings::default(), catalogue }
        }

        fn receive(&mut self, index: usize, number: u32) -> Result<bool, Fault> {
            let (name, body) = (resource_name(index), self.catalogue.body(index, number));
            let entry = Entry { name: name.as_bytes(), version: b"", type_url: b"", body: &body };
            self.board.take(&mut self.holdings, ENDPOINTS, entry)
        }
    }

    #[test]
    fn a_change_counts_once_for_each_client() {
        let mut client = Client::new(false);
        assert_eq!(client.receive(1, 0), Ok(true));
        assert_eq!(client.board.change(Some(1)), 1);
        assert_eq!(client.receive(1, 1), Ok(false));
        assert_eq!(client.board.latencies(1).len(), 1);
        assert_eq!(client.board.totals().resources, 2);
    }

    #[test]
    fn a_repeated_resource_is_a_fault_unless_the_whole_type_is_pushed() {
        let mut client = Client::new(false);
        client.receive(1, 0).expect("the first");
        assert_eq!(client.receive(1, 0), Err(Fault::Repeated { name: resource_name(1), number: 0 }));
        let mut client = Client::new(true);
        client.receive(1, 0).expect("the first");
        assert_eq!(client.receive(1, 0), Ok(false));
    }

    #[test]
    fn a_backward_resource_is_a_fault_also_where_the_whole_type_is_pushed() {
        for whole_type in [false, true] {
            let mut client = Client::new(whole_type);
            client.receive(1, 0).expect("the first");
            client.board.change(Some(1));
            client.board.change(Some(1));
            client.receive(1, 2).expect("the second change");
            assert_eq!(client.receive(1, 1), Err(Fault::Backwards { name: resource_name(1), from: 2, to: 1 }));
        }
    }

    #[test]
    fn a_change_that_vanishes_is_a_fault() {
        let mut client = Client::new(false);
        client.board.change(None);
        let mut receive = |body: &str| {
            let entry = Entry { name: b"r", version: b"", type_url: b"", body: body.as_bytes() };
            client.board.take(&mut client.holdings, ROUTES, entry)
        };
        assert_eq!((receive("x"), receive("y")), (Ok(true), Ok(false)), "what carries no change may be sent again");
        assert_eq!(receive(&marked(1)), Ok(false));
        assert_eq!(receive("x"), Err(Fault::Backwards { name: "r".to_owned(), from: 1, to: 0 }));
    }

    #[test]
    fn the_change_of_another_resource_or_none_is_a_fault() {
        let mut client = Client::new(false);
        client.board.change(Some(2));
        for number in [1, 2] {
            assert_eq!(client.receive(1, number), Err(Fault::Foreign { name: resource_name(1), number }));
        }
    }

    #[test]
    fn a_wrong_endpoint_is_a_fault() {
        let mut client = Client::new(false);
        let (name, body) = (resource_name(1), client.catalogue.body(2, 0));
        let entry = Entry { name: name.as_bytes(), version: b"", type_url: b"", body: &body };
        let taken = client.board.take(&mut client.holdings, ENDPOINTS, entry);
        assert_eq!(taken, Err(Fault::Wrong(Wrong::Content(name))));
    }

    #[test]
    fn a_change_that_was_overtaken_arrives_with_the_one_that_overtook_it() {
        let mut client = Client::new(false);
        client.receive(1, 0).expect("the first");
        for index in [1, 2, 1] {
            client.board.change(Some(index));
        }
        client.receive(1, 3).expect("the newest");
        assert_eq!(client.board.latencies(1).len(), 2, "changes 1 and 3");
    }

    #[test]
    fn other_resources_carry_their_number_as_a_mark() {
        let mut client = Client::new(false);
        let mut receive = |number: u32| {
            let body = format!("\n\x01r..{}..", marked(number));
            let entry = Entry { name: b"", version: b"", type_url: b"", body: body.as_bytes() };
            client.board.take(&mut client.holdings, ROUTES, entry)
        };
        assert_eq!(receive(0), Ok(true));
        assert_eq!(receive(1), Err(Fault::Foreign { name: "r".into(), number: 1 }));
        assert_eq!([marked(1), marked(0xabcdef)], ["chg-00000001", "chg-00abcdef"]);
    }

    #[tokio::test]
    async fn missing_data_and_faults_make_a_run_void() {
        let mut client = Client::new(false);
        let number = client.board.change(Some(1));
        let error = client.board.arrived(number, 1, Duration::ZERO).await.expect_err("nothing came");
        assert!(error.to_string().contains("0 of 1 clients have change 1"), "{error}");
        client.receive(1, 0).expect("the first");
        client.receive(1, 1).expect("the change");
        assert_eq!(client.board.arrived(number, 1, Duration::ZERO).await.expect("it came").len(), 1);
        client.board.fault(7, &Fault::Removed("x".into()));
        let error = client.board.arrived(number, 1, Duration::ZERO).await.expect_err("void");
        assert!(error.to_string().contains("client 7: x was removed"), "{error}");
    }
}
