//! TLS: a client that is no proxy, with whatever certificate a test gives it.
//!
//! Owns: connections that a proxy should take or refuse, and the certificate that it showed. May use: rustls. Never:
//! judges the server's certificate: that is what a test does with it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a client shows of itself.
#[derive(Debug)]
pub enum ClientIdentity {
    /// Nothing.
    None,
    /// A certificate chain and its key, PEM.
    Certificate {
        /// The leaf, then its issuers.
        chain_pem: String,
        /// The leaf's key.
        key_pem: String,
    },
}

/// An open TLS connection.
#[derive(Debug)]
pub struct TlsConnection {
    stream: BufStream<TlsStream<TcpStream>>,
    server: Vec<CertificateDer<'static>>,
}

// === impl TlsConnection ===

impl TlsConnection {
    /// Connects, offering these protocols by ALPN, such as `mesh`.
    ///
    /// With TLS 1.3 a client learns only when it reads that the server has refused its certificate.
    pub async fn open(address: SocketAddr, identity: ClientIdentity, protocols: &[&str]) -> anyhow::Result<Self> {
        Self::open_with(address, None, identity, protocols, rustls::DEFAULT_VERSIONS).await
    }

    /// The same for a host that is named in the handshake.
    pub async fn open_to(address: SocketAddr, host: &str, identity: ClientIdentity) -> anyhow::Result<Self> {
        Self::open_with(address, Some(host), identity, &["http/1.1"], rustls::DEFAULT_VERSIONS).await
    }

    /// The same by one of these versions of TLS.
    pub async fn open_with(
        address: SocketAddr,
        host: Option<&str>,
        identity: ClientIdentity,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Unjudged(provider.clone()));
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            ClientIdentity::None => config.with_no_client_auth(),
            ClientIdentity::Certificate { chain_pem, key_pem } => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("the key is not PEM")?;
                config.with_client_auth_cert(chain.context("the chain is not PEM")?, key)?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.enable_sni = host.is_some();
        let tcp = TcpStream::connect(address).await?;
        let name = match host {
            Some(host) => ServerName::try_from(host.to_owned())?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (_, session) = stream.get_ref();
        let server = session.peer_certificates().unwrap_or_default().to_vec();
        Ok(Self { stream: BufStream::new(stream), server })
    }

    /// The certificate that the server showed, then its issuers.
    pub fn server_certificates(&self) -> &[CertificateDer<'static>] {
        &self.server
    }

    /// Sends one HTTP/1.1 request and reads its answer to the end: status and body.
    pub async fn request(self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        self.send(method, path, "").await
    }

    /// The same with a body.
    pub async fn send(self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{length}connection: close\r\n\r\n{body}");
        let (head, body) = self.exchange(&request).await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| format!("no status in {head:?}"))?, body))
    }

    /// Sends the text of a request after which the connection ends, and reads the head and the body of its answer.
    pub async fn exchange(mut self, request: &str) -> anyhow::Result<(String, String)> {
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").context("the connection was closed without an answer")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// Reads one line without having said anything.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        ensure!(line.ends_with('\n'), "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}

/// Takes every certificate, but no false signature.
#[derive(Debug)]
struct Unjudged(Arc<CryptoProvider>);

impl ServerCertVerifier for Unjudged {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _issuers: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
