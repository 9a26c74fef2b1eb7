//! Cart: the demo's HTTP application, in two versions.
//!
//! Owns: `GET /cart`, which says its version and what the store says. May use: `store`. Never: knows of TLS,
//! identities or proxies: the store is an address on loopback to it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::demo::store;

/// What the cart answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// `v1` or `v2`.
    pub(super) version: String,
    /// What the store said, or why it could not be asked.
    pub(super) store: String,
}

/// One version of the cart.
#[derive(Debug, Clone)]
pub(super) struct Cart {
    /// `v1` or `v2`.
    pub(super) version: &'static str,
    /// Its way to the store: its own proxy.
    pub(super) store: store::Client,
}

// === impl Cart ===

impl Cart {
    /// What it serves.
    pub(super) fn router(self) -> Router {
        Router::new().route("/cart", get(show)).with_state(self)
    }
}

/// 502 if the store cannot be asked; that is no reason for a proxy to try again.
async fn show(State(cart): State<Cart>) -> (StatusCode, Json<Answer>) {
    let (status, store) = match cart.store.ask("apples").await {
        Ok(answer) => (StatusCode::OK, answer),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")),
    };
    (status, Json(Answer { version: cart.version.to_owned(), store }))
}
