//! Store: the demo's server-first TCP application, and its client.
//!
//! Owns: a line protocol in which the server speaks first, as databases and mail servers do. May use: tokio.
//! Never: says anything that depends on who asks; that is for the proxies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What the store says before anybody has asked anything.
const BANNER: &str = "store ready";
/// How many questions are asked on one connection, so that new ones are made all along.
const QUESTIONS: u32 = 50;

/// Serves until `stop` is cancelled.
pub(super) async fn serve(listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let mut connections: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("cannot accept connections")?;
                // How a connection ends is its client's business.
                connections.push(answer(stream).map(drop).boxed());
            }
            Some(()) = connections.next() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// The banner, then one line for each line.
async fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut question = String::new();
    stream.write_all(format!("{BANNER}\n").as_bytes()).await?;
    stream.flush().await?;
    while stream.read_line(&mut question).await? > 0 {
        stream.write_all(format!("{}: in stock\n", question.trim()).as_bytes()).await?;
        stream.flush().await?;
        question.clear();
    }
    Ok(())
}

/// Asks the store. Cloning shares the connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    address: SocketAddr,
    idle: Arc<Mutex<Vec<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    stream: BufStream<TcpStream>,
    left: u32,
}

// === impl Client ===

impl Client {
    /// A client of the store at this address.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Arc::default() }
    }

    /// What the store answers.
    pub(super) async fn ask(&self, question: &str) -> anyhow::Result<String> {
        let idle = self.idle().pop();
        if let Some(connection) = idle
            && let Ok(answer) = self.ask_on(connection, question).await
        {
            return Ok(answer);
        }
        // An idle connection may have been closed meanwhile; a question may be asked twice.
        self.ask_on(Connection::open(self.address).await?, question).await
    }

    async fn ask_on(&self, mut connection: Connection, question: &str) -> anyhow::Result<String> {
        let answer = connection.ask(question).await?;
        if connection.left > 0 {
            self.idle().push(connection);
        }
        Ok(answer)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// Connects, and waits for the banner before it says a word.
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot reach the store")?;
        let mut connection = Self { stream: BufStream::new(stream), left: QUESTIONS };
        let banner = connection.line().await?;
        ensure!(banner == BANNER, "the store said {banner:?}");
        Ok(connection)
    }

    async fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        self.left -= 1;
        self.stream.write_all(format!("{question}\n").as_bytes()).await?;
        self.stream.flush().await?;
        self.line().await
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.context("the store broke off")?;
        ensure!(line.ends_with('\n'), "the store closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Tasks;

    #[tokio::test]
    async fn a_client_survives_the_end_of_its_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = Tasks::default();
        tasks.spawn("store", serve(listener, tasks.stop_token()));
        let session = async {
            let client = Client::new(address);
            for question in 0..2 * QUESTIONS {
                assert_eq!(
                    client.ask(&question.to_string()).await.expect("an answer"),
                    format!("{question}: in stock")
                );
            }
            client.ask("last").await.expect("an answer");
            for connection in client.idle().iter_mut() {
                rustix_shutdown(connection);
            }
            assert_eq!(client.ask("again").await.expect("an answer"), "again: in stock");
        };
        tasks.run(session, std::time::Duration::from_secs(5)).await.expect("the store serves until the end");
    }

    /// Ends a connection from below, as a proxy that drains does.
    fn rustix_shutdown(connection: &mut Connection) {
        let socket = socket_of(connection);
        socket.shutdown(std::net::Shutdown::Both).expect("the connection is open");
    }

    fn socket_of(connection: &Connection) -> std::net::TcpStream {
        use std::os::fd::AsFd;
        let descriptor = connection.stream.get_ref().as_fd().try_clone_to_owned().expect("a descriptor");
        std::net::TcpStream::from(descriptor)
    }

    #[tokio::test]
    async fn nothing_is_asked_before_the_banner() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = Client::new(listener.local_addr().expect("it is bound"));
        let (answer, ()) = tokio::join!(client.ask("anything"), async {
            let (mut stream, _) = listener.accept().await.expect("the client connects");
            stream.write_all(b"something else\n").await.expect("the client reads");
        });
        assert_eq!(answer.expect_err("that is not the store").to_string(), "the store said \"something else\"");
    }
}
