//! HTTP: how the demo's applications serve it.
//!
//! Owns: one function. May use: axum. Never: waits for clients when it is to stop: whoever holds a connection is
//! being stopped as well.

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `stop` is cancelled.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        served = async { axum::serve(listener, router).await } => Ok(served?),
        () = stop.cancelled() => Ok(()),
    }
}
