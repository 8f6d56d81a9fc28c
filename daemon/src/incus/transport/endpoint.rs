//! Where the server is: at a unix socket, or at addresses that are reached over TLS, the members
//! of a cluster. One of them serves at a time; the next one's turn comes when it fails.

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyperlocal::UnixConnector;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;
use url::Url;

use crate::incus::tls;

/// Incus's port unless the URL names one.
const PORT: u16 = 8443;

/// The bytes of a connection, both ways.
pub(in crate::incus) trait Io:
    AsyncRead + AsyncWrite + Debug + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Io for T {}

/// See [`Io`].
pub(in crate::incus) type Stream = Box<dyn Io>;

/// A server that is reached over TLS.
pub struct Remote {
    addresses: Vec<Address>,
    config: Arc<ClientConfig>,
    serving: AtomicUsize,
}

/// One of the places where a server listens.
struct Address {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// Why a server cannot be reached with what is configured.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an address.
    #[error("{0} is no URL such as https://incus.example.com:8443")]
    Url(String),
    /// A PEM text without what is looked for.
    #[error("{0}")]
    Pem(&'static str),
    /// The key is not the certificate's, or not one that can be used.
    #[error("the client's key cannot be used with its certificate")]
    Key(#[source] rustls::Error),
}

impl Remote {
    /// Takes the server's addresses, our certificate and key, and the server's certificate, all
    /// in PEM.
    pub fn new(
        urls: &[String],
        client: &[u8],
        key: &[u8],
        server: &[u8],
    ) -> Result<Self, RemoteError> {
        let server = CertificateDer::from_pem_slice(server)
            .map_err(|_| RemoteError::Pem("the server's certificate is not in PEM"))?;
        Self::pinned(urls, client, key, tls::fingerprint(&server))
    }

    /// Does the same with the fingerprint of the server's certificate.
    pub(in crate::incus) fn pinned(
        urls: &[String],
        client: &[u8],
        key: &[u8],
        pin: String,
    ) -> Result<Self, RemoteError> {
        let certificate = CertificateDer::from_pem_slice(client)
            .map_err(|_| RemoteError::Pem("the client's certificate is not in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| RemoteError::Pem("the client's key is not in PEM"))?;
        let addresses = urls.iter().map(|url| Address::parse(url));
        Ok(Self {
            addresses: addresses.collect::<Result<_, _>>()?,
            config: Arc::new(tls::config(pin, certificate, key).map_err(RemoteError::Key)?),
            serving: AtomicUsize::new(0),
        })
    }

    /// Connects to an address; returns the server's certificate as well.
    pub(in crate::incus) async fn connect(
        &self,
        address: usize,
    ) -> io::Result<(Stream, CertificateDer<'static>)> {
        let Some(address) = self.addresses.get(address) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        // Small requests that wait for their answers.
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .connect(address.name.clone(), stream)
            .await
            .map_err(tls::plain)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first).cloned();
        let certificate = certificate.ok_or(io::ErrorKind::InvalidData)?;
        Ok((Box::new(stream), certificate.into_owned()))
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Url(text.to_owned());
        let url = Url::parse(text).map_err(|_| wrong())?;
        let host = url.host_str().filter(|_| url.scheme() == "https");
        let host = host.ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        Ok(Self {
            url: text.to_owned(),
            name: ServerName::try_from(host.clone()).map_err(|_| wrong())?,
            host,
            // The URL standard leaves 443 out, as if it had not been given.
            port: match url.port() {
                Some(port) => port,
                None if text.trim_end_matches('/').ends_with(":443") => 443,
                None => PORT,
            },
        })
    }
}

/// See the module.
pub(in crate::incus) enum Endpoint {
    Unix(PathBuf),
    Tls(Remote),
}

impl Endpoint {
    /// Returns how many addresses there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Unix(_) => 1,
            Self::Tls(remote) => remote.addresses.len(),
        }
    }

    /// Returns the address whose turn it is.
    pub(super) fn serving(&self) -> usize {
        match self {
            Self::Unix(_) => 0,
            Self::Tls(remote) => remote.serving.load(Ordering::Relaxed),
        }
    }

    /// Passes the turn on, unless somebody else did so already.
    pub(super) fn pass_on(&self, failed: usize) {
        if let Self::Tls(remote) = self {
            let next = (failed + 1) % remote.addresses.len();
            let order = Ordering::Relaxed;
            let _ = remote.serving.compare_exchange(failed, next, order, order);
        }
    }

    /// Returns an address's name for people.
    pub(super) fn name(&self, address: usize) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tls(remote) => {
                let address = remote.addresses.get(address);
                address.map_or_else(String::new, |address| address.url.clone())
            }
        }
    }

    pub(super) async fn connect(&self, address: usize) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => {
                let stream = UnixConnector.call(hyperlocal::Uri::new(path, "/").into());
                Ok(Box::new(stream.await?))
            }
            Self::Tls(remote) => Ok(remote.connect(address).await?.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_incus_port_unless_they_name_one() {
        for (text, host, port) in [
            ("https://incus.example.com", "incus.example.com", 8443),
            ("https://10.0.0.1:9443", "10.0.0.1", 9443),
            ("https://10.0.0.1:443", "10.0.0.1", 443),
            ("https://[fd00::1]:8443", "fd00::1", 8443),
            ("https://[fd00::443]", "fd00::443", 8443),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.host.as_str(), address.port),
                (host, port),
                "{text}"
            );
        }
        for text in ["http://incus.example.com", "incus.example.com", "https://"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
