//! A blocking connection to a server, for tools.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Whom to talk to, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Who asks; empty for the default user.
    pub user: String,
    /// The password; empty without one.
    pub password: String,
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
    input: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and authenticates if there is a password.
    /// Errors: one line.
    pub fn connect(target: &Target) -> Result<Client, String> {
        let shown = format!("{}:{}", target.host, target.port);
        let failed = |error: io::Error| format!("cannot connect to {shown}: {error}");
        let stream = TcpStream::connect((target.host.as_str(), target.port)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut client = Client { input: BufReader::new(stream) };
        if !target.password.is_empty() {
            let mut words = vec![b"AUTH".to_vec()];
            words.extend((!target.user.is_empty()).then(|| target.user.clone().into_bytes()));
            words.push(target.password.clone().into_bytes());
            client.ask(&words)?;
        }
        Ok(client)
    }

    /// The same connection for another thread, to write to.
    pub fn writer(&self) -> io::Result<TcpStream> {
        self.input.get_ref().try_clone()
    }

    /// Ends the connection, for all who use it.
    pub fn hang_up(&self) {
        // It may be gone already.
        let _ = self.input.get_ref().shutdown(std::net::Shutdown::Both);
    }

    /// Asks something and waits for its reply.
    /// Errors: the connection's, or the server's, as one line.
    pub fn ask(&mut self, words: &[Vec<u8>]) -> Result<Answer, String> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        let mut stream = self.input.get_ref();
        let answer = stream.write_all(&bytes).and_then(|()| self.read());
        match answer.map_err(|error| format!("the connection to the server failed: {error}"))? {
            Answer::Error(text) => Err(format!(
                "the server answers {}: {text}",
                String::from_utf8_lossy(&words[0]).to_uppercase()
            )),
            answer => Ok(answer),
        }
    }

    /// Nothing is waited for longer than this.
    pub fn patience(&self, time: Duration) -> io::Result<()> {
        self.input.get_ref().set_read_timeout(Some(time))
    }

    /// Asks something and waits for its reply, which may be an error.
    /// Errors: the connection's.
    pub fn ask_plainly(&mut self, words: &[&str]) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        encode(&mut bytes, words);
        let mut stream = self.input.get_ref();
        stream.write_all(&bytes)?;
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
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"));
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
