//! This module serves a loopback HTTP port by which scripts take the hub down and up again: `/control/down`,
//! `/control/up`, `/control/restart-ess`. GET and POST do the same, so that busybox's wget can use it.

use crate::hub::{DevHub, Hub};
use crate::server::Server;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves the control port on loopback, any free port for 0, and returns the server and its URL.
///
/// # Errors
/// Fails if the port cannot be bound.
pub async fn serve(hub: &Arc<DevHub>, port: u16) -> io::Result<(Server, String)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (down, up, restart) = (hub.clone(), hub.clone(), hub.clone());
    let router = Router::new()
        .route("/control/down", any(move || async move { answer("the hub is down", down.hub_down().await) }))
        .route("/control/up", any(move || async move { answer("the hub is up", up.hub_up().await) }))
        .route(
            "/control/restart-ess",
            any(move || async move { answer("the ESS was restarted", restart.restart_ess().await) }),
        );
    Ok((Server::plain(listener, router), url))
}

fn answer(done: &str, result: io::Result<()>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, format!("{done}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
