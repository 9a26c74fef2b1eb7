//! Records: what a restart must know of a translation, on disk.
//!
//! Owns: the two journals of the translator. May use: `journal`. Never: keeps a translation waiting: a crash may lose
//! what was accepted in the last moments, an orderly stop loses nothing.

use std::path::Path;

use tokio::sync::watch;
use translators::rules::Objects;

use super::ladder::{Recorded, Steps};
use super::last_good::Kept;
use crate::journal::Journal;

/// The task that writes behind the translator.
#[derive(Debug)]
pub struct Records {
    objects: (Journal<Kept>, watch::Receiver<Objects>),
    steps: (Journal<Recorded>, watch::Receiver<Steps>),
}

/// What is to be written, as the translator says it.
#[derive(Debug)]
pub(super) struct ToRecord {
    pub(super) objects: watch::Sender<Objects>,
    pub(super) steps: watch::Sender<Steps>,
}

/// What a journal of objects is called.
const OBJECTS: &str = "last-good.jsonl";

/// The objects that were last in force, as the data directory `data_dir` has them.
pub fn objects(data_dir: &Path) -> Objects {
    Journal::<Kept>::open(Some(data_dir.join(OBJECTS))).1
}

// === impl Records ===

impl Records {
    /// The records in the data directory `data_dir`, or nowhere; what they hold is what is to be written first.
    pub(super) fn open(data_dir: Option<&Path>) -> (Self, ToRecord) {
        let file = |name: &str| data_dir.map(|dir| dir.join(name));
        let (objects, last_good) = Journal::open(file(OBJECTS));
        let (steps, last_steps) = Journal::open(file("mtls-modes.jsonl"));
        let to_record = ToRecord { objects: watch::Sender::new(last_good), steps: watch::Sender::new(last_steps) };
        let (of_objects, of_steps) = (to_record.objects.subscribe(), to_record.steps.subscribe());
        (Self { objects: (objects, of_objects), steps: (steps, of_steps) }, to_record)
    }

    /// Writes until the translator is gone.
    pub async fn run(self) -> anyhow::Result<()> {
        let (objects, of_objects) = self.objects;
        let (steps, of_steps) = self.steps;
        tokio::try_join!(objects.follow(of_objects), steps.follow(of_steps)).map(drop)
    }

    /// Writes what is to be written now.
    #[cfg(test)]
    pub(super) fn write(&mut self) {
        self.objects.0.write(&self.objects.1.borrow().clone());
        self.steps.0.write(&self.steps.1.borrow().clone());
    }
}
