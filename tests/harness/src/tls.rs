//! Makes the certificates of a server, with the `openssl` program: a crate that
//! could do it would be compiled with every test.
//!
//! Does not know which server uses them.

use std::fs;

use crate::engine::needed;
use crate::place::{Place, run};

/// The authority that signed the server's certificate.
pub(crate) const CA: &str = "ca.pem";
/// An authority that signed nothing.
pub(crate) const OTHER_CA: &str = "other-ca.pem";
/// The server's certificate, for `localhost` and 127.0.0.1.
pub(crate) const CERTIFICATE: &str = "server.pem";
pub(crate) const KEY: &str = "server.key";

const CONFIGURATION: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = millpond tests
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:false
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[elsewhere]
basicConstraints = CA:false
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.invalid
";

const DAYS: &str = "3650";
const CURVE: &str = "ec_paramgen_curve:prime256v1";

/// Makes all of them in the server's folder.
///
/// # Panics
///
/// When `openssl` is missing or fails.
pub(crate) fn make(place: &Place) {
    let configuration = place.folder.join("openssl.cnf");
    fs::write(&configuration, CONFIGURATION).expect("the folder can be written to");
    let openssl = needed("openssl", &[], "OpenSSL", "openssl");
    let openssl = |line: &str| {
        let mut command = place.command(&openssl);
        command.args(line.split(' '));
        run(&mut command, "").unwrap_or_else(|error| panic!("{error}"));
    };
    // Of one name: the other authority is told by its signature alone.
    for certificate in [CA, OTHER_CA] {
        let key = certificate.replace(".pem", ".key");
        openssl(&format!(
            "req -x509 -config openssl.cnf -extensions authority -days {DAYS} \
             -newkey ec -pkeyopt {CURVE} -nodes -keyout {key} -out {certificate}"
        ));
    }
    for name in ["server", "elsewhere"] {
        openssl(&format!(
            "req -new -config openssl.cnf -newkey ec -pkeyopt {CURVE} -nodes \
             -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA {CA} -CAkey ca.key -CAcreateserial -days {DAYS} \
             -extfile openssl.cnf -extensions {name} -out {name}.pem"
        ));
    }
}

/// Puts the certificate for another host in place of the server's.
pub(crate) fn show_elsewhere(place: &Place) {
    for (from, to) in [("elsewhere.pem", CERTIFICATE), ("elsewhere.key", KEY)] {
        fs::rename(place.folder.join(from), place.folder.join(to)).expect("both were made");
    }
}

/// Gives a server what another one shows and is trusted by.
pub(crate) fn copy(from: &Place, to: &Place) {
    let mut cp = to.command("cp");
    cp.arg("-p").args([CA, OTHER_CA, CERTIFICATE, KEY].map(|name| from.folder.join(name)));
    run(cp.arg(&to.folder), "").unwrap_or_else(|error| panic!("{error}"));
}
