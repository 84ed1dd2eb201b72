//! Certificates of our own, made by openssl, and clients that speak TLS.

use super::client::encode;
use super::value::Value;
use super::{PATIENCE, tool};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The versions that there are.
pub static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// An authority with a folder for what it signs: `ca.crt`, and `NAME.crt` with `NAME.key` for each
/// name.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let authority = Authority { folder: tempfile::tempdir().expect("a folder") };
        authority.openssl("ca", &[], &["basicConstraints=critical,CA:TRUE"], "ec");
        authority
    }

    /// Signs a certificate for a name, with a key of this kind: `ec` or `rsa`.
    pub fn issue(&self, name: &str, kind: &str) -> &Authority {
        let (authority, key) = (self.path("ca.crt"), self.path("ca.key"));
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        let extensions = [names, "basicConstraints=critical,CA:FALSE"];
        self.openssl(name, &["-CA", &authority, "-CAkey", &key], &extensions, kind);
        self
    }

    fn openssl(&self, name: &str, further: &[&str], extensions: &[&str], kind: &str) {
        let (subject, key, file) = (
            format!("/CN={name}"),
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.crt")),
        );
        // Or the machine's configuration adds extensions of its own.
        let config = self.path("openssl.cnf");
        std::fs::write(&config, "[req]\ndistinguished_name = dn\n[dn]\n").expect("our own folder");
        let mut words =
            vec!["req", "-config", &config, "-x509", "-nodes", "-days", "30", "-newkey"];
        match kind {
            "rsa" => words.push("rsa:2048"),
            _ => words.extend(["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
        }
        words.extend(["-subj", &subject, "-keyout", &key, "-out", &file]);
        words.extend(further);
        words.extend(extensions.iter().flat_map(|extension| ["-addext", extension]));
        let outcome = tool::run("openssl", &words, b"");
        assert!(outcome.status.success(), "openssl {words:?}: {}", outcome.text);
    }

    /// A file of its folder.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_string_lossy().into_owned()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a server is started with that has this certificate.
    pub fn arguments(&self, port: u16, name: &str) -> Vec<String> {
        let (file, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let port = port.to_string();
        let words = ["--tls-port", &port, "--tls-cert-file", &file, "--tls-key-file", &key];
        words.map(str::to_string).to_vec()
    }

    /// What redis-cli and redis-benchmark are started with.
    pub fn tool_arguments(&self, port: u16) -> Vec<String> {
        let words = ["--tls", "--cacert", &self.path("ca.crt"), "-p", &port.to_string()];
        words.map(str::to_string).to_vec()
    }

    /// A client that trusts this authority, and shows the certificate of `name`.
    pub fn client(
        &self,
        name: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.path("ca.crt"))).expect("our own");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).expect("versions that there are");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                let chain = vec![certificate(&self.path(&format!("{name}.crt")))];
                builder
                    .with_client_auth_cert(chain, key.expect("a key"))
                    .expect("that of the certificate")
            }
        })
    }
}

/// The certificate in a file.
pub fn certificate(path: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(PathBuf::from(path)).expect("a certificate")
}

/// A connection that speaks TLS.
pub struct SecureClient {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl SecureClient {
    /// Connects and shakes hands.
    pub fn connect(port: u16, config: &Arc<ClientConfig>) -> SecureClient {
        let mut client = SecureClient::begin(port, config);
        client.shake_hands().unwrap_or_else(|error| panic!("handshake with {port}: {error}"));
        client
    }

    /// Connects and asks something, since in TLS 1.3 a client learns only then that its certificate
    /// is refused.
    pub fn try_connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<SecureClient> {
        let mut client = SecureClient::begin(port, config);
        client.shake_hands()?;
        client.try_say("PING")?;
        Ok(client)
    }

    /// Connects; nothing is sent yet.
    pub fn begin(port: u16, config: &Arc<ClientConfig>) -> SecureClient {
        SecureClient::begin_at(SocketAddr::from(([127, 0, 0, 1], port)), config)
    }

    /// The same at any address.
    pub fn begin_at(address: SocketAddr, config: &Arc<ClientConfig>) -> SecureClient {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a configuration");
        let stream = StreamOwned::new(connection, stream);
        SecureClient { reader: BufReader::with_capacity(64 << 10, stream) }
    }

    /// Does the handshake, or what is left of it.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        let stream = self.reader.get_mut();
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(())
    }

    /// Sends the first record of the handshake and nothing more.
    pub fn send_hello(&mut self) {
        let stream = self.reader.get_mut();
        stream.conn.write_tls(&mut stream.sock).expect("the socket takes it");
    }

    /// The socket, for bytes that are no records.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.reader.get_mut().sock
    }

    /// One command written as words.
    pub fn say(&mut self, command: &str) -> Value {
        self.try_say(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The same, or why not.
    pub fn try_say(&mut self, command: &str) -> io::Result<Value> {
        self.send(&encode(&command.split_whitespace().collect::<Vec<_>>()))?;
        self.read()
    }

    /// Writes bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        self.reader.get_mut().flush()
    }

    /// Reads one reply.
    pub fn read(&mut self) -> io::Result<Value> {
        Value::read(&mut self.reader)
    }

    /// The records of these bytes, not sent.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let connection = &mut self.reader.get_mut().conn;
        connection.writer().write_all(bytes).expect("there is room");
        let mut records = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut records).expect("memory");
        }
        records
    }

    /// Says that nothing more will come, and whether the socket ends with it.
    pub fn finish_writing(&mut self) {
        let stream = self.reader.get_mut();
        stream.conn.send_close_notify();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut stream.sock).expect("the socket takes it");
        }
    }

    /// Ends the socket's writing side without a word.
    pub fn cut(&mut self) {
        self.reader.get_ref().sock.shutdown(Shutdown::Write).expect("the connection stands");
    }

    /// Reads until the server says that nothing more will come. An end without it is an error.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Was the session taken up again?
    pub fn is_resumed(&self) -> bool {
        self.reader.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the server has shown.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        let shown = self.reader.get_ref().conn.peer_certificates().expect("after the handshake");
        shown[0].clone().into_owned()
    }
}
