//! Process: a server under test as the kernel sees it.
//!
//! Owns: the child, the lines that are said to it, its CPU time and memory from `/proc`. May use: tokio. Never: counts
//! the time of the clients.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a peer may take to start or to answer.
const WITHIN: Duration = Duration::from_secs(60);

/// A peer that is told what to do by lines.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: tokio::io::Lines<BufReader<ChildStdout>>,
    log: std::path::PathBuf,
}

/// The CPU time of a process, that of threads that have ended included.
#[derive(Debug)]
pub struct CpuMeter {
    pid: u32,
    threads: Mutex<BTreeMap<u32, u64>>,
}

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What it has now.
    pub resident: u64,
    /// The most that it ever had.
    pub peak: u64,
}

// === impl Peer ===

impl Peer {
    /// Starts a peer, and reads the first line that it says: its address.
    pub async fn start(mut command: Command, log: &Path) -> anyhow::Result<(Self, String)> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        let stdin = child.stdin.take().context("stdin is a pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
        let mut peer = Self { child, stdin, stdout, log: log.to_owned() };
        let address = peer.line().await?;
        Ok((peer, address))
    }

    /// Its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended")
    }

    /// Says a line, and waits until it is answered by `ok`.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.with_context(|| self.last_words())?;
        let answer = self.line().await?;
        ensure!(answer == "ok", "a peer answered {answer:?} to {line:?}");
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(WITHIN, self.stdout.next_line()).await;
        let line = line.with_context(|| format!("a peer said nothing: {}", self.last_words()))??;
        line.with_context(|| format!("a peer has ended: {}", self.last_words()))
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

// === impl CpuMeter ===

impl CpuMeter {
    /// One for a running process.
    pub fn new(pid: u32) -> Self {
        Self { pid, threads: Mutex::default() }
    }

    /// The CPU time until now.
    ///
    /// The scheduler's own count is exact but gone with a thread, so what each thread had is remembered; what the
    /// process as a whole is charged with includes threads that were never seen but comes in hundredths of a second.
    pub fn read(&self) -> anyhow::Result<Duration> {
        let mut threads = self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tasks = format!("/proc/{}/task", self.pid);
        for task in std::fs::read_dir(&tasks).with_context(|| format!("{tasks}: the server has ended"))? {
            let task = task?;
            // A thread may end between the two.
            let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let spent = text.split(' ').next().and_then(|word| word.parse().ok());
            let id = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(id), Some(spent)) = (id, spent) {
                threads.insert(id, spent);
            }
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let seen = Duration::from_nanos(threads.values().sum());
        Ok(seen.max(charged(&stat).context("no CPU time in /proc/PID/stat")?))
    }
}

/// The user and system time in a line of `/proc/PID/stat`, whose ticks are hundredths of a second.
fn charged(stat: &str) -> Option<Duration> {
    let mut members = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u64, u64) = (members.next()?.parse().ok()?, members.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 10))
}

/// The memory of a running process.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the server has ended")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
    };
    let resident = field("VmRSS:").context("no VmRSS")?;
    Ok(Memory { resident, peak: field("VmHWM:").context("no VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charged_time_is_found_behind_any_name() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 25 6 7 20 0 9 0 100 0 0";
        assert_eq!(charged(line), Some(Duration::from_millis(1750)));
        assert_eq!(charged("7"), None);
    }

    #[test]
    fn a_process_has_memory_and_work_takes_time() {
        let memory = memory(std::process::id()).expect("this process runs");
        assert!(memory.peak >= memory.resident && memory.resident > 1 << 20);
        let meter = CpuMeter::new(std::process::id());
        let before = meter.read().expect("this process runs");
        let worked = std::thread::spawn(|| (0..20_000_000u64).fold(1u64, |sum, x| sum.wrapping_mul(x | 1)));
        worked.join().expect("the thread ends");
        assert!(meter.read().expect("this process runs") > before);
    }
}
