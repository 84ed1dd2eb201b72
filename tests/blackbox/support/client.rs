//! A blocking RESP client: one connection, no retries, no hidden buffering of requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
use super::value::Value;

/// One connection. Every read is bounded by [`PATIENCE`].
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).unwrap_or_else(|error| panic!("connect to {port}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(port: u16) -> io::Result<Client> {
        Client::try_connect_to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Connects to any address, or says why not.
    pub fn try_connect_to(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { reader: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Sends one command and reads its reply; panics when the connection fails.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        self.try_call(arguments).unwrap_or_else(|error| panic!("{}: {error}", shown(arguments)))
    }

    /// Sends one command and reads its reply.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Value> {
        self.try_send(&encode(arguments))?;
        self.try_read()
    }

    /// One command written as words: `client.say("SET a 1")`.
    pub fn say(&mut self, command: &str) -> Value {
        self.call(&command.split_whitespace().collect::<Vec<_>>())
    }

    /// Writes raw bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    /// Writes raw bytes, or says why not.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads one reply.
    pub fn read(&mut self) -> Value {
        self.try_read().expect("a reply")
    }

    /// Reads one reply, or says why not.
    pub fn try_read(&mut self) -> io::Result<Value> {
        Value::read(&mut self.reader)
    }

    /// Writes `bytes` from a second thread while reading `count` replies, as a pipelining client
    /// that cannot dead-lock does.
    pub fn pipeline(&mut self, bytes: &[u8], count: usize) -> Vec<Value> {
        self.pipeline_in_pieces(&[bytes], count)
    }

    /// The same, with a system call for each piece.
    pub fn pipeline_in_pieces(&mut self, pieces: &[&[u8]], count: usize) -> Vec<Value> {
        let mut writer = self.reader.get_ref().try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            let writing =
                scope.spawn(move || pieces.iter().try_for_each(|piece| writer.write_all(piece)));
            let replies = (0..count).map(|_| self.read()).collect();
            writing.join().expect("the writer ends").expect("the connection takes bytes");
            replies
        })
    }

    /// Reads until the server closes; returns what came before the end. A reset counts as the end.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the server did not close: {error}"),
        }
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).expect("the connection stands");
    }

    /// Writes `bytes` from a second thread, ends the writing side, and reads all that comes until
    /// the server closes.
    pub fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut writer = self.reader.get_ref().try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            // A server that closes at an error in the middle takes no more: that is no fault of the
            // test.
            scope.spawn(move || {
                let _ = writer.write_all(bytes);
                let _ = writer.shutdown(Shutdown::Write);
            });
            self.read_to_close()
        })
    }

    /// Reads up to so many bytes, at least one; none at the end.
    pub fn read_some(&mut self, bytes_max: usize) -> usize {
        let mut bytes = vec![0; bytes_max];
        match self.reader.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Closes so that the other side learns of it by a reset, as when a process dies with unread
    /// replies.
    pub fn reset(self) {
        super::system::reset_on_close(self.reader.get_ref());
    }

    /// Waits for `time` during which the server must say nothing.
    pub fn wait_in_silence(&mut self, time: Duration) {
        self.reader.get_ref().set_read_timeout(Some(time)).expect("a socket");
        match self.reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("expected silence, got {other:?}"),
        }
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).expect("a socket");
    }

    /// Bytes that have arrived and were not read, without waiting for more. Zero when there are
    /// none.
    pub fn pending(&mut self) -> usize {
        if !self.reader.buffer().is_empty() {
            return self.reader.buffer().len();
        }
        self.reader.get_ref().set_nonblocking(true).expect("a socket");
        let pending = match self.reader.fill_buf() {
            Ok(bytes) => bytes.len(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        self.reader.get_ref().set_nonblocking(false).expect("a socket");
        pending
    }
}

/// One command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn shown<A: AsRef<[u8]>>(arguments: &[A]) -> String {
    let mut text = String::new();
    for argument in arguments.iter().take(4) {
        let argument = argument.as_ref();
        text.push_str(&argument[..argument.len().min(40)].escape_ascii().to_string());
        text.push(' ');
    }
    text
}
