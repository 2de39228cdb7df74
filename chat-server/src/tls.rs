//! TLS of the server itself: a certificate chain and its key from two files, read again when they change.
//!
//! A pair that cannot be used is refused with the names of both files, and the earlier pair stays in use.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use madang_service::{Clock, Drain};
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::private;

/// How often the files are checked.
const LOOK: Duration = Duration::from_secs(5);
/// The largest file of certificates or keys. The longest chains have about 10 KiB.
const FILE_BYTES: u64 = 1024 * 1024;

/// Why a pair cannot be used. Names both files, because only their owner knows which of them is wrong.
#[derive(Debug, thiserror::Error)]
#[error("tls.cert {} and tls.key {} cannot be used: {reason}", cert.display(), key.display())]
pub struct TlsError {
    cert: PathBuf,
    key: PathBuf,
    reason: String,
}

/// The certificate and the acceptor of handshakes.
pub struct Tls {
    acceptor: TlsAcceptor,
    pair: Arc<Pair>,
}

/// The pair of files, and the key that is in use.
#[derive(Debug)]
struct Pair {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    in_use: ArcSwap<CertifiedKey>,
    /// The files as they were when they were last read, with or without success.
    seen: Mutex<Stamps>,
}

/// Each change of a file changes one of these: device, inode, seconds, nanoseconds, size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;
type Stamps = [Stamp; 2];

impl Tls {
    /// Reads the pair. `None` if none is configured.
    ///
    /// # Errors
    /// The pair cannot be used.
    pub fn open(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        // Taken before the files are read: a change in between is noticed by the next check.
        let seen = Mutex::new([stamp(&config.cert), stamp(&config.key)]);
        let certified = read_pair(&config.cert, &config.key, &provider)?;
        let in_use = ArcSwap::from_pointee(certified);
        let (cert, key) = (config.cert.clone(), config.key.clone());
        let pair = Arc::new(Pair { cert, key, provider, in_use, seen });
        let acceptor = acceptor(&pair).map_err(|error| pair.error(error.to_string()))?;
        Ok(Some(Self { acceptor, pair }))
    }

    #[must_use]
    pub const fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again and uses them for new handshakes. Open connections keep the old certificate.
    ///
    /// # Errors
    /// The new pair cannot be used. The earlier one stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let pair = &self.pair;
        *pair.seen.lock() = pair.stamps();
        pair.in_use.store(Arc::new(read_pair(&pair.cert, &pair.key, &pair.provider)?));
        tracing::info!(cert = %pair.cert.display(), "reloaded the certificate");
        Ok(())
    }

    /// Reloads whenever a file has changed, until the drain.
    pub async fn watch(self: Arc<Self>, clock: Clock, drain: Drain) {
        loop {
            tokio::select! {
                () = clock.sleep(LOOK) => {}
                () = drain.draining() => return,
            }
            // Two small files that rarely change: a separate thread is not worth it.
            if self.pair.stamps() != *self.pair.seen.lock() {
                self.reload_or_tell();
            }
        }
    }

    /// As [`Self::reload`]. A failure is logged.
    pub fn reload_or_tell(&self) {
        if let Err(error) = self.reload() {
            tracing::error!(%error, "reloading the certificate failed: the previous one stays in use");
        }
    }
}

impl Pair {
    fn stamps(&self) -> Stamps {
        [stamp(&self.cert), stamp(&self.key)]
    }

    fn error(&self, reason: String) -> TlsError {
        TlsError { cert: self.cert.clone(), key: self.key.clone(), reason }
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.in_use.load_full())
    }
}

fn acceptor(pair: &Arc<Pair>) -> Result<TlsAcceptor, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&pair.provider));
    let versions = builder.with_protocol_versions(&[&TLS13, &TLS12])?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(pair) as _;
    let mut config = versions.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients resume with a ticket that they keep themselves; the server keeps no state for them.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn stamp(path: &Path) -> Stamp {
    let of = |file: Metadata| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size());
    std::fs::metadata(path).ok().map(of)
}

fn read_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let wrong = |reason: String| TlsError { cert: cert.to_owned(), key: key.to_owned(), reason };
    let text = |path: &Path| read(path).map_err(|error| wrong(format!("{}: {error}", path.display())));
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&text(cert)?).collect();
    let chain = chain.map_err(|error| wrong(format!("{}: {error}", cert.display())))?;
    if chain.is_empty() {
        let is_swapped = PrivateKeyDer::from_pem_slice(&text(cert)?).is_ok()
            && CertificateDer::from_pem_slice(&text(key)?).is_ok();
        return Err(wrong(match is_swapped {
            true => "tls.cert contains a private key and tls.key a certificate: swap the two".to_owned(),
            false => format!("{} contains no certificate", cert.display()),
        }));
    }
    let private_key = PrivateKeyDer::from_pem_slice(&text(key)?)
        .map_err(|error| wrong(format!("{} contains no private key: {error}", key.display())))?;
    let certified = CertifiedKey::from_der(chain, private_key, provider).map_err(|error| {
        wrong(match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                "the key does not match the first certificate".to_owned()
            }
            error => error.to_string(),
        })
    })?;
    private::warn_if_public(key);
    Ok(certified)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB"));
    }
    Ok(bytes)
}
