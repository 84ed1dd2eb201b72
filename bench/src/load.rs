//! Filling a server with keys over one pipelined connection.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// Commands sent before their replies are read: enough to hide the round trip, few enough that the
/// replies fit into socket buffers.
const PIPELINE_DEPTH: u64 = 1000;

/// A blocking connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of this machine.
    pub fn open(port: u16) -> Result<Connection, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// Sends one command; returns the first line of its reply. For commands with one-line replies.
    pub fn call(&mut self, arguments: &[&str]) -> Result<String, String> {
        let mut bytes = Vec::new();
        let arguments: Vec<&[u8]> = arguments.iter().map(|text| text.as_bytes()).collect();
        encode(&mut bytes, &arguments);
        self.write(&bytes)?;
        self.read_line()
    }

    /// Sets `key(i)` to `value_size` bytes for every `i` below `count`.
    pub fn fill(
        &mut self,
        count: u64,
        value_size: usize,
        key: impl Fn(u64) -> String,
    ) -> Result<(), String> {
        let value = vec![b'x'; value_size];
        let mut bytes = Vec::new();
        let mut next = 0;
        while next < count {
            let end = count.min(next + PIPELINE_DEPTH);
            bytes.clear();
            for index in next..end {
                encode(&mut bytes, &[b"SET", key(index).as_bytes(), &value]);
            }
            self.write(&bytes)?;
            for _ in next..end {
                let line = self.read_line()?;
                if line != "+OK" {
                    return Err(format!("SET answered {line}"));
                }
            }
            next = end;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.reader.get_mut().write_all(bytes).map_err(|error| error.to_string())
    }

    fn read_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(_) => Ok(line.trim_end().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn encode(bytes: &mut Vec<u8>, arguments: &[&[u8]]) {
    bytes.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
}

/// The key that redis-benchmark makes of `key:__rand_int__` and this number.
pub fn benchmark_key(index: u64) -> String {
    format!("key:{index:012}")
}

/// A key of exactly `size` bytes, different for each index below 10^size.
pub fn sized_key(index: u64, size: usize) -> String {
    format!("{index:0size$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_sizes() {
        assert_eq!(benchmark_key(7), "key:000000000007");
        assert_eq!(sized_key(7, 16).len(), 16);
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"GET", b"a"]);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }
}
