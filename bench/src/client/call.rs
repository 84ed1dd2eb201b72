//! Single commands over a blocking connection: what a measurement asks a server before, between and
//! after loads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::resp::{Elements, Reply, Scan, encode, scan};

/// How long a reply may take; a server that saves or loads millions of keys is busy for long.
const REPLY_TIME_MAX: Duration = Duration::from_secs(600);

/// A blocking connection.
pub struct Caller {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Caller {
    /// Connects.
    pub fn open(target: SocketAddr) -> Result<Caller, String> {
        let connect = || {
            let stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(REPLY_TIME_MAX))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Caller { stream, received: Vec::new() }),
            Err(error @ std::io::Error { .. }) => Err(format!("{target}: {error}")),
        }
    }

    /// Sends a command and returns its reply as text: `OK`, `12`, a value, or the elements of an
    /// array line by line. An error reply is an error.
    pub fn call(&mut self, arguments: &[&str]) -> Result<String, String> {
        let what = || arguments.join(" ");
        let mut bytes = Vec::new();
        let arguments: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
        encode(&mut bytes, &arguments);
        self.stream.write_all(&bytes).map_err(|error| format!("{}: {error}", what()))?;
        let mut buffer = [0; 4096];
        loop {
            match scan(&self.received) {
                Scan::Whole(Reply::Error(text), length) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    self.received.drain(..length);
                    return Err(format!("{} answered: {text}", what()));
                }
                Scan::Whole(reply, length) => {
                    let text = text_of(reply);
                    self.received.drain(..length);
                    return Ok(text);
                }
                Scan::Part => {}
                Scan::Broken => return Err(format!("{}: a reply that is not RESP", what())),
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("{}: the server closed the connection", what())),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(format!("{}: {error}", what())),
            }
        }
    }

    /// Sends commands that are encoded already and takes as many replies; an error among them is an
    /// error.
    pub fn send_all(&mut self, requests: &[u8], count: usize) -> Result<(), String> {
        self.stream.write_all(requests).map_err(|error| format!("{count} requests: {error}"))?;
        let mut buffer = vec![0; 64 << 10];
        let mut left = count;
        loop {
            let mut taken = 0;
            while left > 0 {
                match scan(&self.received[taken..]) {
                    Scan::Whole(Reply::Error(text), _) => {
                        return Err(format!("answered: {}", String::from_utf8_lossy(text)));
                    }
                    Scan::Whole(_, length) => (taken, left) = (taken + length, left - 1),
                    Scan::Part => break,
                    Scan::Broken => return Err("a reply that is not RESP".into()),
                }
            }
            self.received.drain(..taken);
            if left == 0 {
                return Ok(());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(format!("{left} of {count} replies missing: {error}")),
            }
        }
    }

    /// Sends a command whose reply is long and takes it without looking at more than its first
    /// byte.
    pub fn take_long(&mut self, arguments: &[&str]) -> Result<(), String> {
        const MARK: &str = "the end of a long reply";
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
        encode(&mut bytes, &words);
        encode(&mut bytes, &[b"ECHO", MARK.as_bytes()]);
        self.stream.write_all(&bytes).map_err(|error| format!("{}: {error}", arguments[0]))?;
        let end = format!("${}\r\n{MARK}\r\n", MARK.len());
        let mut buffer = vec![0; 256 << 10];
        let (mut first, mut tail) = (None, Vec::new());
        while !tail.ends_with(end.as_bytes()) {
            let length = match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(length) => length,
                Err(error) => return Err(format!("{}: {error}", arguments[0])),
            };
            first.get_or_insert(buffer[0]);
            tail.extend_from_slice(&buffer[..length]);
            tail.drain(..tail.len().saturating_sub(end.len()));
        }
        match first {
            Some(b'-') => Err(format!("{} was refused", arguments[0])),
            _ => Ok(()),
        }
    }

    /// The number that a command answers.
    pub fn number(&mut self, arguments: &[&str]) -> Result<u64, String> {
        let text = self.call(arguments)?;
        text.parse().map_err(|_| format!("{} answered {text}", arguments.join(" ")))
    }

    /// A field of INFO, if the server has it.
    pub fn info(&mut self, section: &str, field: &str) -> Result<Option<String>, String> {
        let text = self.call(&["INFO", section])?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.map(str::to_string))
    }
}

fn text_of(reply: Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Status(bytes) | Reply::Error(bytes) | Reply::Bulk(Some(bytes)) => text(bytes),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(None) => String::new(),
        Reply::Array(elements) => {
            Elements(elements).map(text_of).collect::<Vec<String>>().join("\n")
        }
    }
}
