//! Https: an HTTP application that speaks TLS itself, as servers outside of a mesh do.
//!
//! Owns: its authority and its certificate. May use: rcgen, tokio-rustls. Never: asks for a client's certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who vouches for a server, PEM.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Connections after their handshake; one that fails is dropped.
pub(super) struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// What a server called `name` shows, of this version of TLS or any.
    fn server(
        &self,
        name: &str,
        only: Option<&'static rustls::SupportedProtocolVersion>,
    ) -> anyhow::Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = match only {
            Some(version) => config.with_protocol_versions(&[version])?,
            None => config.with_safe_default_protocol_versions()?,
        };
        let chain = vec![certificate.der().clone()];
        config.with_no_client_auth().with_single_cert(chain, key).context("the key is the certificate's")
    }
}

// === impl Tls ===

impl Tls {
    pub(super) async fn bind(
        authority: &Authority,
        name: &str,
        only: Option<&'static rustls::SupportedProtocolVersion>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(authority.server(name, only)?)) })
    }
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
