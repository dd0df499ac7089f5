//! TLS by the system's library.
//!
//! Decides what is believed in each mode. Does not speak PostgreSQL.

use std::fs;
use std::io;
use std::path::Path;

use millpond_driver::{Error, Result};
use native_tls::{Certificate, Identity};
use tokio_native_tls::{TlsConnector, TlsStream};

use super::{Tls, TlsMode, handshake, unreadable};
use crate::wire::Compat;

pub(super) struct Connector(TlsConnector);

impl Connector {
    pub(super) fn new(tls: &Tls) -> Result<Self> {
        let mut builder = native_tls::TlsConnector::builder();
        let proof = tls.proof();
        builder.danger_accept_invalid_certs(proof < TlsMode::VerifyCa);
        builder.danger_accept_invalid_hostnames(proof < TlsMode::VerifyFull);
        if let Some(path) = &tls.roots {
            let pem = read("sslrootcert", path)?;
            let roots = Certificate::stack_from_pem(&pem)
                .map_err(|error| unreadable("sslrootcert", path, error))?;
            if roots.is_empty() {
                return Err(unreadable("sslrootcert", path, "it holds no certificate"));
            }
            builder.disable_built_in_roots(true);
            for root in roots {
                builder.add_root_certificate(root);
            }
        }
        if let Some((certificate, key)) = &tls.identity {
            let (pem, secret) = (read("sslcert", certificate)?, read("sslkey", key)?);
            let identity = Identity::from_pkcs8(&pem, &secret)
                .map_err(|error| unreadable("sslkey", key, error))?;
            builder.identity(identity);
        }
        let connector = builder.build().map_err(|error| Error::config(format!("TLS: {error}")))?;
        Ok(Self(connector.into()))
    }

    /// The stream, and the hash that binds a login to the server's certificate.
    pub(super) async fn connect(
        &self,
        io: Compat,
        host: &str,
    ) -> Result<(TlsStream<Compat>, Option<Vec<u8>>)> {
        // The library says of a broken connection and of a bad certificate the
        // same; the first comes as an error of the system inside.
        let stream = self.0.connect(host, io).await.map_err(|error| {
            let broken =
                std::error::Error::source(&error).is_some_and(|inner| inner.is::<io::Error>());
            handshake(&error, !broken)
        })?;
        let binding = stream.get_ref().tls_server_end_point().ok().flatten();
        Ok((stream, binding))
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| unreadable(what, path, error))
}
