//! From files to what sessions begin with.
//!
//! Everything is read and checked before anything is replaced. A refusal names the setting, the
//! file and the cause.

use super::store::Store;
use super::{AuthClients, Protocols, TlsSettings};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, InconsistentKeys,
    RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    version,
};
use std::path::Path;
use std::sync::Arc;

/// Why settings or files do not do: the setting's name and the cause.
pub type Refusal = (&'static str, String);

/// A suite under the names of OpenSSL and of the standards.
type Named = (&'static str, SupportedCipherSuite);

/// Suites of TLS 1.2, by OpenSSL's names, the best first.
const SUITES_12: &[Named] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Suites of TLS 1.3.
const SUITES_13: &[Named] = &[
    ("TLS_AES_256_GCM_SHA384", cipher_suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", cipher_suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// Are these names of suites of TLS 1.2?
/// Errors: the first that is none.
pub fn check_ciphers(text: &str) -> Result<(), String> {
    suites(text, SUITES_12).map(|_| ())
}

/// Are these names of suites of TLS 1.3?
/// Errors: the first that is none.
pub fn check_ciphersuites(text: &str) -> Result<(), String> {
    suites(text, SUITES_13).map(|_| ())
}

/// Suites by their names, separated by colons, in the order given; all of them when none is named.
fn suites(text: &str, known: &[Named]) -> Result<Vec<SupportedCipherSuite>, String> {
    let words: Vec<&str> = text.split([':', ' ', ',']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words == ["DEFAULT"] {
        return Ok(known.iter().map(|(_, suite)| *suite).collect());
    }
    let suite = |word: &&str| {
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, suite)| *suite).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            format!("no suite is called '{word}' here; there are {}", names.join(":"))
        })
    };
    words.iter().map(suite).collect()
}

/// The cipher suites that are asked for, of both versions.
fn provider(settings: &TlsSettings) -> Result<Arc<CryptoProvider>, Refusal> {
    let mut cipher_suites =
        suites(&settings.ciphersuites, SUITES_13).map_err(|cause| ("tls-ciphersuites", cause))?;
    cipher_suites
        .extend(suites(&settings.ciphers, SUITES_12).map_err(|cause| ("tls-ciphers", cause))?);
    Ok(Arc::new(CryptoProvider { cipher_suites, ..default_provider() }))
}

/// Reads all that the settings name.
/// Errors: the first that is missing, unreadable or does not fit.
pub fn load(settings: &TlsSettings) -> Result<Arc<ServerConfig>, Refusal> {
    let certificates = certificates("tls-cert-file", Path::new(&settings.cert_file))?;
    let key = private_key(Path::new(&settings.key_file))?;
    let provider = provider(settings)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings.protocols))
        .map_err(|error| ("tls-protocols", error.to_string()))?;
    let builder = match settings.auth_clients {
        AuthClients::No => builder.with_no_client_auth(),
        wanted => {
            let roots = Arc::new(authorities(settings)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match wanted {
                AuthClients::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier =
                verifier.build().map_err(|error| ("tls-ca-cert-file", error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(certificates, key).map_err(|error| mismatch(settings, &error))?;
    config.ignore_client_order = settings.prefer_server_ciphers;
    config.session_storage = match settings.session_caching {
        true => Arc::new(Store::new(settings.session_cache_size, settings.session_cache_timeout)),
        false => Arc::new(NoServerSessionStorage {}),
    };
    Ok(Arc::new(config))
}

/// What sessions with other nodes begin with: this node's certificate, and the authorities of
/// theirs. Errors: the first that is missing, unreadable or does not fit.
pub fn load_client(settings: &TlsSettings) -> Result<Arc<ClientConfig>, Refusal> {
    let shown = certificates("tls-cert-file", Path::new(&settings.cert_file))?;
    let key = private_key(Path::new(&settings.key_file))?;
    let mut config = client_of_any_node(settings)?
        .with_client_auth_cert(shown, key)
        .map_err(|error| mismatch(settings, &error))?;
    // Links are few and last: each shows its certificate.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a tool's session with a server begins with: the authorities of servers, and a certificate
/// if it has one. Errors: the first that is missing, unreadable or does not fit.
pub fn load_tool(settings: &TlsSettings) -> Result<Arc<ClientConfig>, Refusal> {
    if !settings.cert_file.is_empty() {
        return load_client(settings);
    }
    Ok(Arc::new(client_of_any_node(settings)?.with_no_client_auth()))
}

/// The side that dials, without what it shows.
fn client_of_any_node(
    settings: &TlsSettings,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Refusal> {
    let provider = provider(settings)?;
    let roots = Arc::new(authorities(settings)?);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    let inner = inner.build().map_err(|error| ("tls-ca-cert-file", error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(settings.protocols))
        .map_err(|error| ("tls-protocols", error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(OfAnyNode(inner))))
}

/// Takes every certificate that an authority of the cluster has signed, whatever names it has:
/// nodes are told apart by what they prove in their handshake, and their addresses change. Redis
/// does the same.
#[derive(Debug)]
struct OfAnyNode(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for OfAnyNode {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, when all else is good.
        match self.0.verify_server_cert(shown, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn versions(protocols: Protocols) -> &'static [&'static SupportedProtocolVersion] {
    match protocols {
        Protocols::Default | Protocols::Both => &BOTH,
        Protocols::Only12 => &BOTH[1..],
        Protocols::Only13 => &BOTH[..1],
    }
}

/// Why a certificate and a key do not make a server's.
fn mismatch(settings: &TlsSettings, error: &Error) -> Refusal {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let cause = format!(
                "the key in {} is not that of the certificate in {}",
                settings.key_file, settings.cert_file
            );
            ("tls-key-file", cause)
        }
        Error::InvalidCertificate(_) => (
            "tls-cert-file",
            format!("the first certificate in {} is no X.509 v3 ({error})", settings.cert_file),
        ),
        _ => ("tls-key-file", format!("the key in {} is of no use: {error}", settings.key_file)),
    }
}

fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, Refusal> {
    std::fs::read(path).map_err(|error| (name, format!("cannot read {}: {error}", path.display())))
}

/// The certificates in a PEM file, one at least.
fn certificates(name: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let text = read(name, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Err(error) => Err((name, format!("{} is damaged: {error}", path.display()))),
        Ok(found) if found.is_empty() => {
            Err((name, format!("{} has no certificate in PEM", path.display())))
        }
        Ok(found) => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Refusal> {
    const NAME: &str = "tls-key-file";
    let text = read(NAME, path)?;
    let is_encrypted = text.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED");
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let cause = match is_encrypted {
            true => {
                "is encrypted, and nobody is asked for its password: decrypt it by openssl pkey"
            }
            false => "has no private key in PEM",
        };
        (NAME, format!("{} {cause} ({error})", path.display()))
    })
}

/// Those who may have signed a client's certificate.
fn authorities(settings: &TlsSettings) -> Result<RootCertStore, Refusal> {
    let mut roots = RootCertStore::empty();
    let file = &settings.ca_cert_file;
    if !file.is_empty() {
        const NAME: &str = "tls-ca-cert-file";
        for certificate in certificates(NAME, Path::new(file))? {
            roots
                .add(certificate)
                .map_err(|error| (NAME, format!("{file} has one of no use: {error}")))?;
        }
    }
    let folder = &settings.ca_cert_dir;
    if !folder.is_empty() {
        const NAME: &str = "tls-ca-cert-dir";
        let before = roots.len();
        let refused = |error| (NAME, format!("cannot read {folder}: {error}"));
        for entry in std::fs::read_dir(folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            // Links of c_rehash are followed; other files may lie there.
            if path.is_file()
                && let Ok(found) = certificates(NAME, &path)
            {
                roots.add_parsable_certificates(found);
            }
        }
        if roots.len() == before {
            return Err((NAME, format!("{folder} has no certificate in PEM")));
        }
    }
    Ok(roots)
}
