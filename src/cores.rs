//! Cores: work on many things, done on all of them.
//!
//! Owns: from how many on that pays. May use: rayon. Never: the order of the results is another than that of the things.

use rayon::prelude::*;

/// So many are worth waking other threads for.
const MANY: usize = 64;

/// `work` done for each of `items`, in their order, on all cores where there are many.
pub fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if items.len() < MANY { items.into_iter().map(work).collect() } else { items.into_par_iter().map(work).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Condvar, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_are_worked_on_at_the_same_time_and_few_by_whoever_asks() {
        let cores = rayon::current_num_threads().min(2);
        let (threads, come) = (Mutex::new(HashSet::new()), Condvar::new());
        // The first one stays until there is another, or gives up once.
        let work = |item: usize| {
            let mut threads = threads.lock().expect("no panic");
            threads.insert(thread::current().id());
            come.notify_all();
            if item == 0 {
                let wait = Duration::from_secs(10);
                drop(come.wait_timeout_while(threads, wait, |threads| threads.len() < cores).expect("no panic"));
            }
            item * 2
        };
        let doubled = each((0..1000).collect(), work);
        assert_eq!(doubled, (0..1000).map(|item| item * 2).collect::<Vec<_>>());
        assert!(threads.lock().expect("no panic").len() >= cores);

        let of_few = each((0..MANY - 1).collect(), |_| thread::current().id());
        assert_eq!(of_few, vec![thread::current().id(); MANY - 1]);
    }
}
