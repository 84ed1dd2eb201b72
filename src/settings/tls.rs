//! Rows of the table that are about TLS, by Redis' names.

use super::row::{Setting, integer, switch, text, word};
use super::table::NETWORK;
use super::values::{Word, words};
use crate::net::tls::{AuthClients, Protocols, config};

impl Word for AuthClients {
    const WORDS: &'static [(&'static str, AuthClients)] =
        &[("no", AuthClients::No), ("yes", AuthClients::Yes), ("optional", AuthClients::Optional)];
}

/// Words of `tls-protocols`, and what they allow together.
const PROTOCOLS: &[(&str, Protocols)] = &[
    ("", Protocols::Default),
    ("TLSv1.2 TLSv1.3", Protocols::Both),
    ("TLSv1.2", Protocols::Only12),
    ("TLSv1.3", Protocols::Only13),
];

fn protocols_text(protocols: Protocols) -> String {
    let found = PROTOCOLS.iter().find(|(_, value)| *value == protocols);
    found.expect("all are listed").0.to_string()
}

fn read_protocols(value: &str) -> Result<Protocols, String> {
    let (mut has_12, mut has_13) = (false, false);
    for item in super::values::items(value) {
        match item.to_ascii_lowercase().as_str() {
            "tlsv1.2" => has_12 = true,
            "tlsv1.3" => has_13 = true,
            "tlsv1" | "tlsv1.1" => {
                return Err(format!("{item} is not spoken here: TLSv1.2 and TLSv1.3 are"));
            }
            _ => {
                return Err(
                    "Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'.".into()
                );
            }
        }
    }
    Ok(match (has_12, has_13) {
        (false, false) => Protocols::Default,
        (true, true) => Protocols::Both,
        (true, false) => Protocols::Only12,
        (false, true) => Protocols::Only13,
    })
}

pub(super) const PORT: Setting =
    integer("tls-port", 0, 65535, |s| s.tls.port.into(), |s, v| s.tls.port = v as u16).help(
        NETWORK,
        "N",
        "Port for clients that speak TLS, 1.2 or 1.3; 0 for none",
    );

pub(super) const CLUSTER: Setting = switch(
    "tls-cluster",
    |s| s.tls.cluster,
    |s, v| s.tls.cluster = v,
)
.help(
    NETWORK,
    "YES|NO",
    "Links between nodes speak TLS and both ends show their certificates; the same on all nodes",
);

pub(super) const CERT_FILE: Setting = text(
    "tls-cert-file",
    |s| s.tls.cert_file.clone(),
    |s, v| {
        s.tls.cert_file = v.into();
        Ok(())
    },
)
.help(
    NETWORK,
    "FILE",
    "The server's certificate and those above it, PEM; read again when it changes",
)
.at_run_time();

pub(super) const KEY_FILE: Setting = text(
    "tls-key-file",
    |s| s.tls.key_file.clone(),
    |s, v| {
        s.tls.key_file = v.into();
        Ok(())
    },
)
.help(NETWORK, "FILE", "Its private key, PEM, not encrypted; read again when it changes")
.at_run_time();

pub(super) const CA_CERT_FILE: Setting = text(
    "tls-ca-cert-file",
    |s| s.tls.ca_cert_file.clone(),
    |s, v| {
        s.tls.ca_cert_file = v.into();
        Ok(())
    },
)
.help(NETWORK, "FILE", "Authorities of clients' certificates, PEM")
.at_run_time();

pub(super) const CA_CERT_DIR: Setting = text(
    "tls-ca-cert-dir",
    |s| s.tls.ca_cert_dir.clone(),
    |s, v| {
        s.tls.ca_cert_dir = v.into();
        Ok(())
    },
)
.help(NETWORK, "DIR", "A folder with such files")
.at_run_time();

pub(super) const AUTH_CLIENTS: Setting = word(
    "tls-auth-clients",
    words::<AuthClients>,
    |s| s.tls.auth_clients.word(),
    |s, v| AuthClients::from_word(v).map(|to| s.tls.auth_clients = to),
)
.help(
    NETWORK,
    "WHETHER",
    "Must clients show a certificate? optional: one that is shown must be good",
)
.at_run_time();

pub(super) const PROTOCOLS_ROW: Setting = text(
    "tls-protocols",
    |s| protocols_text(s.tls.protocols),
    |s, v| read_protocols(v).map(|to| s.tls.protocols = to),
)
.help(NETWORK, "LIST", "Versions that are spoken: TLSv1.2, TLSv1.3; empty for both")
.at_run_time();

pub(super) const CIPHERS: Setting = text(
    "tls-ciphers",
    |s| s.tls.ciphers.clone(),
    |s, v| {
        config::check_ciphers(v)?;
        s.tls.ciphers = v.into();
        Ok(())
    },
)
.help(
    NETWORK,
    "LIST",
    "Suites of TLS 1.2 by OpenSSL's names, separated by colons; empty for all there are",
)
.at_run_time();

pub(super) const CIPHERSUITES: Setting = text(
    "tls-ciphersuites",
    |s| s.tls.ciphersuites.clone(),
    |s, v| {
        config::check_ciphersuites(v)?;
        s.tls.ciphersuites = v.into();
        Ok(())
    },
)
.help(NETWORK, "LIST", "Suites of TLS 1.3, likewise")
.at_run_time();

pub(super) const PREFER_SERVER_CIPHERS: Setting = switch(
    "tls-prefer-server-ciphers",
    |s| s.tls.prefer_server_ciphers,
    |s, v| s.tls.prefer_server_ciphers = v,
)
.help(NETWORK, "YES|NO", "Choose suites by the server's order, not the client's")
.at_run_time();

pub(super) const SESSION_CACHING: Setting =
    switch("tls-session-caching", |s| s.tls.session_caching, |s, v| s.tls.session_caching = v)
        .help(
            NETWORK,
            "YES|NO",
            "Let clients take up their sessions again, which spares them half the handshake",
        )
        .at_run_time();

pub(super) const SESSION_CACHE_SIZE: Setting = integer(
    "tls-session-cache-size",
    0,
    i32::MAX as i64,
    |s| s.tls.session_cache_size.into(),
    |s, v| s.tls.session_cache_size = v as u32,
)
.help(NETWORK, "N", "Sessions kept for that; 0 for any number")
.at_run_time();

pub(super) const SESSION_CACHE_TIMEOUT: Setting = integer(
    "tls-session-cache-timeout",
    0,
    i32::MAX as i64,
    |s| s.tls.session_cache_timeout.into(),
    |s, v| s.tls.session_cache_timeout = v as u32,
)
.help(NETWORK, "SECONDS", "How long they are kept")
.at_run_time();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn set(row: &Setting, value: &str) -> Result<String, String> {
        let mut settings = Settings::default();
        row.kind.set(&mut settings, value)?;
        Ok(row.kind.get(&settings))
    }

    #[test]
    fn versions_are_those_there_are() {
        for (value, shown) in [
            ("", ""),
            ("tlsv1.3", "TLSv1.3"),
            ("TLSv1.2", "TLSv1.2"),
            ("TLSv1.3 TLSv1.2", "TLSv1.2 TLSv1.3"),
        ] {
            assert_eq!(set(&PROTOCOLS_ROW, value), Ok(shown.to_string()), "{value}");
        }
        for (value, word) in [
            ("TLSv1", "TLSv1 is not spoken"),
            ("TLSv1.3 TLSv1.1", "TLSv1.1 is not"),
            ("SSLv3", "Invalid"),
        ] {
            let refusal = set(&PROTOCOLS_ROW, value).expect_err(value);
            assert!(refusal.contains(word), "{refusal}");
        }
    }

    #[test]
    fn suites_are_those_there_are() {
        for value in ["", "DEFAULT", "ECDHE-RSA-AES128-GCM-SHA256:ecdhe-ecdsa-chacha20-poly1305"] {
            assert_eq!(set(&CIPHERS, value), Ok(value.to_string()));
        }
        assert!(set(&CIPHERSUITES, "TLS_AES_128_GCM_SHA256").is_ok());
        for (row, value) in [
            (&CIPHERS, "DEFAULT:!MEDIUM"),
            (&CIPHERS, "AES128-SHA"),
            (&CIPHERS, "TLS_AES_128_GCM_SHA256"),
            (&CIPHERSUITES, "ECDHE-RSA-AES128-GCM-SHA256"),
        ] {
            let refusal = set(row, value).expect_err(value);
            assert!(refusal.starts_with("no suite is called '"), "{refusal}");
        }
    }
}
