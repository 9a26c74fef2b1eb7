//! Child: a process that ends with its value.
//!
//! Owns: the process by its id, and its log. May use: SIGTERM and SIGKILL. Never: signals by name or group.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::wait::eventually;

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// A running process.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    log: PathBuf,
}

// === impl Child ===

impl Child {
    /// Starts `command`; what it says is appended to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let both = file.try_clone().with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(both).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// An error with its log, if it has ended.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it has ended ({status}):\n{}", self.log()),
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
            kill_process(pid, Signal::TERM)?;
        }
        let child = &mut self.child;
        eventually(GRACE, "the end after SIGTERM", async || child.try_wait()?.context("it still runs")).await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
