//! TLS: the server's side of it, over buffers.
//!
//! A [`Session`](session::Session) turns records into bytes and bytes into records; whoever has the
//! socket hands them over. What sessions begin with (certificate, key, who may come) is read from
//! files by [`config`], kept in the [`Front`](front::Front) and read again when the files change.
//! Sessions that have begun go on with what they began with.
//!
//! Knows nothing of connections, cores or RESP.

pub mod config;
pub mod front;
pub mod session;
pub mod store;

/// Whether clients must show a certificate (`tls-auth-clients`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthClients {
    /// They must, and it must be signed by one of the authorities.
    Yes,
    /// They are not asked for one.
    No,
    /// They may; one that is shown must be good.
    Optional,
}

/// What `tls-protocols` allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocols {
    /// TLS 1.2 and 1.3, because nothing else was said.
    #[default]
    Default,
    /// The same, said.
    Both,
    /// TLS 1.2 alone.
    Only12,
    /// TLS 1.3 alone.
    Only13,
}

/// The settings, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Port for clients that speak TLS; 0 is none.
    pub port: u16,
    /// Do links to other nodes speak TLS, with this certificate at both ends?
    pub cluster: bool,
    /// The server's certificate and those between it and an authority, PEM.
    pub cert_file: String,
    /// Its private key, PEM.
    pub key_file: String,
    /// Authorities of clients' certificates, PEM; empty is none.
    pub ca_cert_file: String,
    /// A folder with such files; empty is none.
    pub ca_cert_dir: String,
    /// Whether clients must show a certificate.
    pub auth_clients: AuthClients,
    /// Which versions are spoken.
    pub protocols: Protocols,
    /// Suites of TLS 1.2 by OpenSSL's names; empty is all that there are.
    pub ciphers: String,
    /// Suites of TLS 1.3; empty is all.
    pub ciphersuites: String,
    /// Does the server's order of suites count, rather than the client's?
    pub prefer_server_ciphers: bool,
    /// May a client take up its session again, without another full handshake?
    pub session_caching: bool,
    /// Sessions kept for that; 0 is no bound but the process'.
    pub session_cache_size: u32,
    /// Seconds that they are kept.
    pub session_cache_timeout: u32,
}

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        TlsSettings {
            port: 0,
            cluster: false,
            cert_file: String::new(),
            key_file: String::new(),
            ca_cert_file: String::new(),
            ca_cert_dir: String::new(),
            auth_clients: AuthClients::Yes,
            protocols: Protocols::Default,
            ciphers: String::new(),
            ciphersuites: String::new(),
            prefer_server_ciphers: false,
            session_caching: true,
            session_cache_size: 20_480,
            session_cache_timeout: 300,
        }
    }
}

impl TlsSettings {
    /// What is missing or contradicts itself, when there is a port.
    /// Errors: a setting's name and why it cannot be so.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.cluster && self.port == 0 {
            return Err((
                "tls-cluster",
                "other nodes reach this one at its tls-port: give one".into(),
            ));
        }
        if self.cluster && self.auth_clients == AuthClients::No {
            let cause =
                "nodes show each other certificates: tls-auth-clients must be yes or optional";
            return Err(("tls-cluster", cause.into()));
        }
        if self.port == 0 {
            return Ok(());
        }
        for (name, path) in [("tls-cert-file", &self.cert_file), ("tls-key-file", &self.key_file)] {
            if path.is_empty() {
                return Err((name, format!("tls-port {} needs it", self.port)));
            }
        }
        let has_authorities = !self.ca_cert_file.is_empty() || !self.ca_cert_dir.is_empty();
        if self.auth_clients != AuthClients::No && !has_authorities {
            let cause = "clients' certificates cannot be checked without tls-ca-cert-file or tls-ca-cert-dir: give one, or \
                         tls-auth-clients no";
            return Err(("tls-auth-clients", cause.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_needs_a_certificate_a_key_and_authorities() {
        let mut settings = TlsSettings::default();
        assert_eq!(settings.check(), Ok(()), "without a port nothing is needed");
        settings.cluster = true;
        assert_eq!(settings.check().expect_err("no port").0, "tls-cluster");
        settings.cluster = false;
        settings.port = 6390;
        let missing = |settings: &TlsSettings| settings.check().expect_err("missing").0;
        assert_eq!(missing(&settings), "tls-cert-file");
        settings.cert_file = "c".into();
        assert_eq!(missing(&settings), "tls-key-file");
        settings.key_file = "k".into();
        assert_eq!(missing(&settings), "tls-auth-clients");
        settings.auth_clients = AuthClients::Optional;
        assert_eq!(missing(&settings), "tls-auth-clients");
        settings.auth_clients = AuthClients::No;
        assert_eq!(settings.check(), Ok(()));
        settings.cluster = true;
        assert_eq!(missing(&settings), "tls-cluster", "certificates are wanted of nodes");
        settings.cluster = false;
        settings.auth_clients = AuthClients::Yes;
        settings.ca_cert_dir = "d".into();
        assert_eq!(settings.check(), Ok(()));
    }
}
