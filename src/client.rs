//! A blocking connection to a server, for tools.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error as TlsError, StreamOwned};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// What TLS begins with. Two are the same if they were read together.
#[derive(Clone, Debug)]
pub struct Tls(pub Arc<ClientConfig>);

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

/// Whom to talk to, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who asks; empty for the default user.
    pub user: String,
    /// The password; empty without one.
    pub password: String,
    /// Where TLS is spoken; the server is one that a certificate's authority vouches for, as this
    /// says.
    pub tls: Option<Tls>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// The default user of the server at `HOST:PORT`, or at `PORT` of this machine.
    /// Errors: it is neither.
    pub fn parse(text: &str) -> Result<Target, String> {
        let (host, port) = match text.rsplit_once(':') {
            None | Some(("", _)) => ("127.0.0.1", text.trim_start_matches(':')),
            Some((host, port)) => (host, port),
        };
        // What has colons of its own stands in brackets.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match port.parse::<u16>() {
            Ok(port @ 1..) if bare.is_some() || !host.contains(':') => {
                let host = bare.unwrap_or(host).to_string();
                Ok(Target { host, port, ..Target::default() })
            }
            _ => Err(format!("'{text}' is no HOST:PORT, and no port of this machine")),
        }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A line.
    Simple(String),
    /// An error.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// Nothing.
    Null,
    /// Several.
    Array(Vec<Answer>),
}

/// A connection.
pub struct Client {
    input: BufReader<Wire>,
}

/// What it goes over.
enum Wire {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Secure(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(bytes),
            Wire::Secure(stream) => stream.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Secure(stream) => stream.flush(),
        }
    }
}

impl Client {
    /// Connects, and authenticates if there is a password.
    /// Errors: one line.
    pub fn connect(target: &Target) -> Result<Client, String> {
        let stream = TcpStream::connect((target.host.as_str(), target.port));
        Client::begin(stream.map_err(|error| cannot_connect(target, &error))?, target)
    }

    /// The same, where neither the server's machine nor any of its replies is waited for longer
    /// than this. Errors: one line.
    pub fn connect_within(target: &Target, patience: Duration) -> Result<Client, String> {
        let failed = |error: io::Error| cannot_connect(target, &error);
        let addresses = (target.host.as_str(), target.port).to_socket_addrs().map_err(failed)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(patience)).map_err(failed)?;
                    stream.set_write_timeout(Some(patience)).map_err(failed)?;
                    return Client::begin(stream, target);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn begin(socket: TcpStream, target: &Target) -> Result<Client, String> {
        let failed = |error: io::Error| cannot_connect(target, &error);
        socket.set_nodelay(true).map_err(failed)?;
        let wire = match &target.tls {
            None => Wire::Plain(socket),
            // Hands are shaken when something is asked.
            Some(Tls(config)) => {
                let name = ServerName::try_from(target.host.clone());
                let name = name.map_err(|error| failed(io::Error::other(error)))?;
                let connection = ClientConnection::new(config.clone(), name);
                let connection = connection.map_err(|error| failed(io::Error::other(error)))?;
                Wire::Secure(Box::new(StreamOwned::new(connection, socket)))
            }
        };
        let mut client = Client { input: BufReader::new(wire) };
        if !target.password.is_empty() {
            let mut words = vec![b"AUTH".to_vec()];
            words.extend((!target.user.is_empty()).then(|| target.user.clone().into_bytes()));
            words.push(target.password.clone().into_bytes());
            client.ask(&words)?;
        }
        Ok(client)
    }

    /// The same connection for another thread, to write to.
    /// Errors: the kernel's; TLS is spoken, where nobody else can write.
    pub fn writer(&self) -> io::Result<TcpStream> {
        match self.input.get_ref() {
            Wire::Plain(socket) => socket.try_clone(),
            Wire::Secure(_) => Err(io::Error::other("TLS is written to from one place")),
        }
    }

    /// Ends the connection, for all who use it.
    pub fn hang_up(&self) {
        // It may be gone already.
        let _ = self.input.get_ref().socket().shutdown(std::net::Shutdown::Both);
    }

    /// Asks something and waits for its reply.
    /// Errors: the connection's, or the server's, as one line.
    pub fn ask(&mut self, words: &[Vec<u8>]) -> Result<Answer, String> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        let sent = self.send(&bytes);
        let answer = sent.and_then(|()| self.read());
        match answer.map_err(|error| failed(&error))? {
            Answer::Error(text) => Err(format!(
                "the server answers {}: {text}",
                String::from_utf8_lossy(&words[0]).to_uppercase()
            )),
            answer => Ok(answer),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wire = self.input.get_mut();
        wire.write_all(bytes)?;
        wire.flush()
    }

    /// Nothing is waited for longer than this.
    pub fn patience(&self, time: Duration) -> io::Result<()> {
        self.input.get_ref().socket().set_read_timeout(Some(time))
    }

    /// Asks something and waits for its reply, which may be an error.
    /// Errors: the connection's.
    pub fn ask_plainly(&mut self, words: &[impl AsRef<[u8]>]) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        self.send(&bytes)?;
        self.read()
    }

    /// The same with words of text.
    pub fn say(&mut self, line: &str) -> Result<Answer, String> {
        let words = line.split(' ').map(|word| word.as_bytes().to_vec());
        self.ask(&words.collect::<Vec<_>>())
    }

    /// The next reply.
    pub fn read(&mut self) -> io::Result<Answer> {
        let mut line = Vec::new();
        // raft-kv sends lines of text as one, with bare line feeds between them.
        while !line.ends_with(b"\r\n") {
            if self.input.read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"));
            }
        }
        let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        let strange = || io::Error::other(format!("a strange reply: {line}"));
        let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
        let number = || rest.parse::<i64>().map_err(|_| strange());
        Ok(match kind {
            "+" => Answer::Simple(rest.into()),
            "-" => Answer::Error(rest.into()),
            ":" => Answer::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Answer::Null,
                Ok(size) => {
                    let mut bytes = vec![0; size + 2];
                    self.input.read_exact(&mut bytes)?;
                    bytes.truncate(size);
                    Answer::Bulk(bytes)
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Answer::Null,
                Ok(count) => {
                    Answer::Array((0..count).map(|_| self.read()).collect::<io::Result<_>>()?)
                }
            },
            _ => return Err(strange()),
        })
    }
}

fn cannot_connect(target: &Target, error: &io::Error) -> String {
    format!("cannot connect to {target}: {}", said(error))
}

/// What a tool says of a connection that stood.
pub fn failed(error: &io::Error) -> String {
    format!("the connection to the server failed: {}", said(error))
}

/// The kernel's words for a time that is over are about something else; those of TLS do not say
/// what to do.
fn said(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return "no answer in time".into();
    }
    match error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>()) {
        None => error.to_string(),
        Some(TlsError::InvalidMessage(_)) => {
            "no TLS is spoken there: --tls is for a tls-port".into()
        }
        Some(TlsError::InvalidCertificate(_)) => {
            format!("{error}: --cacert names the authority that has signed the server's")
        }
        Some(TlsError::AlertReceived(_)) => {
            format!("{error}: does it want a certificate? See --cert and --key")
        }
        Some(_) => error.to_string(),
    }
}

/// Appends a request.
pub fn encode(out: &mut Vec<u8>, words: &[impl AsRef<[u8]>]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("7001", "127.0.0.1:7001"),
            (":7001", "127.0.0.1:7001"),
            ("example.org:6379", "example.org:6379"),
            ("[::1]:7001", "[::1]:7001"),
        ] {
            assert_eq!(Target::parse(text).map(|target| target.to_string()), Ok(shown.to_string()));
        }
        for text in ["", ":", "host", "host:", "host:0", "host:65536", "::1:7001", "0", "[::1]"] {
            assert!(Target::parse(text).is_err_and(|cause| cause.contains(text)), "{text}");
        }
    }
}
