//! This module serves HTTP/1.1 on a listener until the server is dropped, which ends every connection at
//! once, as killing a process does.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A `Server` is a running server. Dropping it closes the listener and its connections.
pub struct Server {
    tasks: JoinSet<()>,
}

impl Server {
    /// Serves plain HTTP.
    pub fn plain(listener: TcpListener, router: Router) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => { connections.spawn(answer(stream, router.clone())); }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { tasks }
    }

    /// Serves HTTPS over a unix socket.
    pub fn tls(listener: UnixListener, config: Arc<rustls::ServerConfig>, router: Router) -> Self {
        let mut tasks = JoinSet::new();
        let acceptor = TlsAcceptor::from(config);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let (acceptor, router) = (acceptor.clone(), router.clone());
                        connections.spawn(async move {
                            match acceptor.accept(stream).await {
                                Ok(stream) => answer(stream, router).await,
                                Err(error) => tracing::debug!(%error, "TLS handshake failed"),
                            }
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { tasks }
    }

    /// Ends the server and waits until its listener and connections are closed.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    if let Err(error) =
        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
    {
        tracing::debug!(%error, "connection ended");
    }
}
