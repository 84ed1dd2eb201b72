//! One connection's TLS: records in, bytes out, and the other way round.
//!
//! It holds what rustls holds (a record that is not all there, records that the socket did not
//! take) and, during the handshake, bytes that wait for their turn. Cost per record: one decryption
//! or encryption, two copies, two allocations of rustls' own.

use crate::limits::{TLS_RECORDS_RESERVED, TLS_SESSION_BYTES};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use std::io::{self, BufRead, Write};
use std::sync::Arc;

/// Longest plain text of a record.
const RECORD_BYTES_MAX: usize = 1 << 14;

/// The state of one connection's TLS.
pub struct Session {
    connection: Connection,
    /// Bytes received that wait for their turn in a handshake.
    incoming: Vec<u8>,
    /// Records that replies were made into.
    record_count: u64,
    /// Has the client sent close_notify?
    has_peer_closed: bool,
    /// Does nobody take its records any more?
    is_deaf: bool,
    /// Is it listed for going on with its handshake?
    pub is_queued: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("handshaking", &self.is_handshaking())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that waits for the client's first record.
    pub fn new(config: Arc<ServerConfig>) -> Session {
        let connection = ServerConnection::new(config);
        Session::of(connection.expect("fragments are of the usual size").into())
    }

    /// A session with another node, which begins with this side's first record.
    pub fn dial(config: Arc<ClientConfig>, node: &str) -> Session {
        // Who it is, the link finds out: any certificate of the authority is a node's.
        let name = ServerName::try_from(node.to_string());
        let name = name.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        let connection = ClientConnection::new(config, name);
        Session::of(connection.expect("fragments are of the usual size").into())
    }

    fn of(mut connection: Connection) -> Session {
        // Whoever encrypts has a bound.
        connection.set_buffer_limit(None);
        Session {
            connection,
            incoming: Vec::new(),
            record_count: 0,
            has_peer_closed: false,
            is_deaf: false,
            is_queued: false,
        }
    }

    /// Has the other side shown a certificate? It was signed by one of the authorities then.
    pub fn is_certified(&self) -> bool {
        self.connection.peer_certificates().is_some_and(|shown| !shown.is_empty())
    }

    /// Is the handshake under way?
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Has the client said that it sends nothing more?
    pub fn has_peer_closed(&self) -> bool {
        self.has_peer_closed
    }

    /// Keeps received bytes for later. Returns how many there are.
    pub fn keep(&mut self, bytes: &[u8]) -> usize {
        self.incoming.extend_from_slice(bytes);
        self.incoming.len()
    }

    /// Has it received anything that it has not dealt with?
    pub fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Takes received bytes, after those kept; what they say is appended to `plain`.
    /// Errors: it is no TLS, or not the right one; an alert for the client is among what is to be
    /// sent.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        if !self.incoming.is_empty() {
            let kept = std::mem::take(&mut self.incoming);
            self.take(&kept, plain)?;
        }
        self.take(bytes, plain)
    }

    fn take(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        // What comes after the end is nobody's.
        while !bytes.is_empty() && !self.has_peer_closed {
            let taken = self.connection.read_tls(&mut bytes);
            taken.map_err(|error| Error::General(error.to_string()))?;
            let outcome = self.connection.process_new_packets();
            self.drain(plain);
            self.has_peer_closed = outcome?.peer_has_closed();
        }
        Ok(())
    }

    fn drain(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // Neither what is not there yet nor an end is an error of this reader's source.
        while let Ok(bytes) = reader.fill_buf()
            && !bytes.is_empty()
        {
            let count = bytes.len();
            plain.extend_from_slice(bytes);
            reader.consume(count);
        }
    }

    /// Makes records of `bytes`, once the handshake is over.
    pub fn encrypt(&mut self, bytes: &[u8]) {
        let written = self.connection.writer().write(bytes);
        let count = written.expect("memory takes everything");
        assert_eq!(count, bytes.len(), "there is no limit");
        self.record_count += bytes.len().div_ceil(RECORD_BYTES_MAX) as u64;
    }

    /// Has its key been used for nearly as many records as is safe? In TLS 1.2 there is no way to
    /// another one but another connection (with AES that is after 16 million records); in 1.3
    /// rustls changes keys by itself.
    pub fn is_worn_out(&self) -> bool {
        match self.connection.negotiated_cipher_suite() {
            Some(SupportedCipherSuite::Tls12(suite)) => {
                let limit = suite.common.confidentiality_limit;
                self.record_count >= limit.saturating_sub(TLS_RECORDS_RESERVED)
            }
            _ => false,
        }
    }

    /// Says that nothing more will be sent, if the handshake came to its end. After an alert it
    /// says nothing.
    pub fn close(&mut self) {
        if !self.is_handshaking() {
            self.connection.send_close_notify();
        }
    }

    /// Are there records for the socket?
    pub fn has_unsent(&self) -> bool {
        self.connection.wants_write() && !self.is_deaf
    }

    /// Hands records to the socket, by one write. Returns how many bytes it took.
    /// Errors: the socket's.
    pub fn send(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.connection.write_tls(socket)
    }

    /// Nobody takes what would be sent.
    pub fn discard(&mut self) {
        self.is_deaf = true;
    }

    /// Gives memory back that is not in use.
    pub fn shrink(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
    }

    /// Bytes of memory it holds, as far as they are known.
    pub fn memory(&self) -> usize {
        TLS_SESSION_BYTES + self.incoming.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AuthClients, TlsSettings, config};
    use super::*;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
        SupportedProtocolVersion, version,
    };
    use std::process::Command;

    /// A client that trusts everybody.
    #[derive(Debug)]
    struct Trusting;

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    fn server_config() -> Arc<ServerConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let settings = TlsSettings {
            port: 1,
            cert_file: path("crt"),
            key_file: path("key"),
            auth_clients: AuthClients::No,
            ..TlsSettings::default()
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-subj", "/CN=x", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-keyout", &settings.key_file, "-out", &settings.cert_file])
            .output()
            .expect("openssl (tests/run installs it)");
        assert!(made.status.success(), "{made:?}");
        config::load(&settings).expect("what was made")
    }

    /// A client and a session that have shaken hands.
    fn pair(version: &'static SupportedProtocolVersion) -> (ClientConnection, Session) {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[version]).expect("a version that there is");
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting));
        let name = ServerName::try_from("x").expect("a name");
        let client = Arc::new(builder.with_no_client_auth());
        let mut client = ClientConnection::new(client, name).expect("a configuration");
        let mut session = Session::new(server_config());
        while client.is_handshaking() || session.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).expect("memory");
            }
            let mut plain = Vec::new();
            // Byte by byte: a record is put together wherever it was cut.
            for byte in flight {
                session.receive(&[byte], &mut plain).expect("a good client");
            }
            assert!(plain.is_empty());
            deliver(&mut session, &mut client);
        }
        (client, session)
    }

    fn deliver(session: &mut Session, client: &mut ClientConnection) {
        let mut flight = Vec::new();
        while session.has_unsent() {
            session.send(&mut flight).expect("memory");
        }
        let mut flight = &flight[..];
        while !flight.is_empty() {
            client.read_tls(&mut flight).expect("room");
            client.process_new_packets().expect("a good server");
        }
    }

    #[test]
    fn a_key_of_tls_1_2_wears_out_and_one_of_1_3_does_not() {
        for (version, wears_out) in [(&version::TLS12, true), (&version::TLS13, false)] {
            let (_, mut session) = pair(version);
            session.encrypt(&vec![1; 3 * RECORD_BYTES_MAX + 1]);
            assert_eq!((session.record_count, session.is_worn_out()), (4, false));
            session.record_count = (1 << 24) - TLS_RECORDS_RESERVED;
            assert_eq!(session.is_worn_out(), wears_out);
        }
    }

    #[test]
    fn nothing_is_read_behind_the_end_and_nothing_of_what_is_damaged() {
        for version in [&version::TLS12, &version::TLS13] {
            let (mut client, mut session) = pair(version);
            let mut plain = Vec::new();
            let seal = |client: &mut ClientConnection, bytes: &[u8]| {
                client.writer().write_all(bytes).expect("room");
                let mut records = Vec::new();
                client.write_tls(&mut records).expect("memory");
                records
            };
            let (first, mut second) = (seal(&mut client, b"first"), seal(&mut client, b"second"));
            session.receive(&first, &mut plain).expect("whole");
            let middle = second.len() - 3;
            second[middle] ^= 1;
            session.receive(&second, &mut plain).expect_err("damaged");
            assert_eq!(plain, b"first");
            assert!(session.has_unsent(), "an alert");
            assert!(session.receive(&seal(&mut client, b"third"), &mut plain).is_err());
            assert_eq!(plain, b"first");

            let (mut client, mut session) = pair(version);
            let said = seal(&mut client, b"first");
            client.send_close_notify();
            let mut end = Vec::new();
            client.write_tls(&mut end).expect("memory");
            session.receive(&[said.clone(), end, said].concat(), &mut plain).expect("in order");
            assert_eq!(plain, b"firstfirst");
            assert!(session.has_peer_closed() && !session.has_incoming());
            // The other direction is open.
            session.encrypt(b"reply");
            deliver(&mut session, &mut client);
            let mut reply = [0; 5];
            std::io::Read::read_exact(&mut client.reader(), &mut reply).expect("it is there");
            assert_eq!(&reply, b"reply");
        }
    }

    #[test]
    fn bytes_by_chance_never_panic() {
        let config = server_config();
        let mut seed = 0x1234_5678_9abc_def1u64;
        let mut chance = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..2000 {
            let mut session = Session::new(config.clone());
            let mut plain = Vec::new();
            for _ in 0..4 {
                let length = (chance() % 40) as u16;
                let mut record = vec![[0x14, 0x15, 0x16, 0x17][(chance() % 4) as usize], 3, 3];
                record.extend_from_slice(&length.to_be_bytes());
                record.extend((0..length).map(|_| (chance() % 5) as u8));
                if session.receive(&record, &mut plain).is_err() {
                    break;
                }
            }
            assert!(plain.is_empty() && session.is_handshaking());
        }
    }
}
