//! TLS by rustls.
//!
//! Decides what is believed in each mode. Does not speak PostgreSQL.

use std::path::Path;
use std::sync::Arc;

use ::rustls::client::WebPkiServerVerifier;
use ::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use ::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use ::rustls::pki_types::pem::PemObject;
use ::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use ::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use millpond_driver::{Cause, Error, Result};
use ring::digest;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Tls, TlsMode, handshake, unreadable};
use crate::sniff::NotPostgres;
use crate::wire::Compat;

pub(super) struct Connector(TlsConnector);

impl Connector {
    pub(super) fn new(tls: &Tls) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::config(format!("TLS: {error}")))?;
        let builder = match tls.proof() {
            TlsMode::VerifyFull => builder.with_root_certificates(roots(tls)?),
            mode => {
                let chain = match mode {
                    TlsMode::VerifyCa => Some(chain(tls, &provider)?),
                    _ => None,
                };
                let verifier = Arc::new(AnyName { chain, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("sslcert", certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unreadable("sslkey", key, error))?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| unreadable("sslkey", key, error))?
            }
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The stream, and the hash that binds a login to the server's certificate.
    pub(super) async fn connect(
        &self,
        io: Compat,
        host: &str,
    ) -> Result<(TlsStream<Compat>, Option<Vec<u8>>)> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::config(format!("host: {host:?} is not a name that TLS can check"))
        })?;
        let stream = self.0.connect(name, io).await.map_err(|failure| {
            match failure.get_ref().and_then(|error| error.downcast_ref::<::rustls::Error>()) {
                // It began as a server that has TLS does, by chance.
                Some(::rustls::Error::InvalidMessage(_)) => {
                    Error::connect(NotPostgres.to_string()).with_cause(Cause::Config)
                }
                Some(error) => handshake(&in_words(error), true),
                None => handshake(&failure, false),
            }
        })?;
        let certificates = stream.get_ref().1.peer_certificates();
        let binding = certificates.and_then(|chain| end_point(chain.first()?));
        Ok((stream, binding))
    }
}

/// What the library says in the names of its types, in words.
fn in_words(error: &::rustls::Error) -> String {
    let ::rustls::Error::InvalidCertificate(wrong) = error else { return error.to_string() };
    match wrong {
        // The latter if an authority of the same name is known.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is of no known authority; sslrootcert names a file of others"
                .to_owned()
        }
        // The library hides which it is, but for its text.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the certificate is an authority's own (CA:TRUE), which proves no server".to_owned()
        }
        _ => error.to_string(),
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(what, path, error))?;
    if found.is_empty() {
        return Err(unreadable(what, path, "it holds no certificate"));
    }
    Ok(found)
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &tls.roots {
        Some(path) => {
            for certificate in certificates("sslrootcert", path)? {
                store.add(certificate).map_err(|error| unreadable("sslrootcert", path, error))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(Error::config(
                    "sslrootcert: the system has no root certificates; name a file of them",
                ));
            }
        }
    }
    Ok(store)
}

fn chain(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), Arc::clone(provider))
        .build()
        .map_err(|error| Error::config(format!("sslrootcert: {error}")))
}

/// Believes a certificate for any name, and without `chain` of anybody.
#[derive(Debug)]
struct AnyName {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` of RFC 5929: the certificate's hash, by the function
/// of its signature, but never a weaker one than SHA-256.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match signature_algorithm(certificate)? {
        // RSA and ECDSA, each with SHA-1, 256, 384 and 512, and RSA with MD5.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 13] => &digest::SHA512,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 1] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => &digest::SHA512,
        // Ed25519 and RSA-PSS name no single function here.
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The object identifier in `Certificate { tbs, algorithm { oid, … }, … }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate)?;
    let (_tbs, rest) = element(certificate)?;
    let (algorithm, _) = element(rest)?;
    let (oid, _) = element(algorithm)?;
    Some(oid)
}

/// The content of the first element of DER, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                length.iter().try_fold(0_usize, |sum, &byte| {
                    sum.checked_mul(256)?.checked_add(usize::from(byte))
                })?,
                rest,
            )
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_signature_of_the_certificate() {
        let certificate = |oid: &[u8]| {
            let wrap = |body: &[u8]| [&[0x30, body.len() as u8], body].concat();
            let oid = [&[0x06, oid.len() as u8], oid].concat();
            wrap(&[wrap(&[0x02, 1, 7]), wrap(&oid), vec![0x03, 1, 0]].concat())
        };
        for (oid, length) in [
            (&b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"[..], Some(32)),
            (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", Some(48)),
            (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", Some(64)),
            (b"\x2b\x65\x70", None),
        ] {
            let hash = end_point(&certificate(oid));
            assert_eq!(hash.map(|hash| hash.len()), length, "{oid:x?}");
        }
        assert_eq!(end_point(b"\x30\x82"), None);
    }
}
