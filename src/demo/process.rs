//! Process: one child process and its log.
//!
//! Owns: the child from its start to its end, by its id. May use: `task`. Never: lets a child outlive the run,
//! or reads what it says for anything but showing it.
//!
//! SIGINT, SIGTERM and SIGHUP of the run reach the children through the tasks. Nothing does after a SIGKILL of the
//! run: the children then stay, and so does the directory. The system could end them (`PR_SET_PDEATHSIG`), but a
//! child has to ask for that itself between fork and exec, which takes unsafe code or a program that is not on
//! every machine (`setpriv`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::task::Tasks;

/// How long a child has to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How much of a log is shown.
const TAIL: usize = 15;

/// A running child, as others see it. The child itself belongs to its task.
#[derive(Debug, Clone)]
pub(super) struct Process {
    name: &'static str,
    pid: u32,
    log: PathBuf,
    ended: CancellationToken,
}

// === impl Process ===

impl Process {
    /// Starts `command` as a task: the child ends when the tasks stop, and its own end is a failure.
    pub(super) fn start(
        tasks: &mut Tasks,
        name: &'static str,
        mut command: Command,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let both = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        // A process group of its own: Ctrl-C is for us, and we end the child when it is time.
        command.stdin(Stdio::null()).stdout(file).stderr(both).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("a child has an id until it is waited for")?;
        let process = Self { name, pid, log, ended: CancellationToken::new() };
        let stop = tasks.stop_token();
        tasks.spawn(name, {
            let process = process.clone();
            async move {
                let _ended = process.ended.clone().drop_guard();
                tokio::select! {
                    status = child.wait() => bail!("it ended by itself ({}){}", status?, process.tail()),
                    () = stop.cancelled() => terminate(&mut child).await.context("cannot end it"),
                }
            }
        });
        Ok(process)
    }

    /// Its id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ready when the child has ended, with what it said last.
    pub(super) async fn ended(&self) -> anyhow::Error {
        self.ended.cancelled().await;
        anyhow::anyhow!("{} ended by itself{}", self.name, self.tail())
    }

    /// The last lines of its log, as the end of a message.
    pub(super) fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// Ends a child: SIGTERM, then SIGKILL after the grace.
async fn terminate(child: &mut Child) -> std::io::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM)?;
    }
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(ended) => ended.map(drop),
        Err(_elapsed) => child.kill().await,
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    format!("; the end of {}:\n  {}", log.display(), last.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Ended;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn a_child_is_ended_with_the_tasks() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut tasks = Tasks::default();
        let process = Process::start(&mut tasks, "sleeper", shell("exec sleep 60"), directory.path().join("log"))
            .expect("sh starts");
        assert!(alive(process.pid()));
        tasks.run(std::future::ready(()), GRACE * 2).await.expect("everything stops");
        assert!(!alive(process.pid()));
    }

    #[tokio::test]
    async fn a_child_that_ends_shows_its_last_words() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut tasks = Tasks::default();
        let script = "echo cannot bind; exit 3";
        let process = Process::start(&mut tasks, "server", shell(script), log.clone()).expect("sh starts");
        let said = format!("; the end of {}:\n  cannot bind", log.display());
        assert_eq!(process.ended().await.to_string(), format!("server ended by itself{said}"));
        let ended = tasks.run(std::future::pending(), GRACE).await.expect_err("a child that ends is a failure");
        let Ended::Failed { name, source } = ended else { panic!("{ended:?}") };
        assert_eq!((name, source.to_string()), ("server", format!("it ended by itself (exit status: 3){said}")));
    }
}
