//! A carrier's connection to a target: RESP out, lines back, and patience between two signs of
//! life.

use super::{Destination, Migration};
use crate::core::migrate::carrier::Stage;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest line of a target; what goes on beyond is no server's.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// After so long a carrier looks whether it is to give up.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The other end is gone, or talks nonsense.
    Lost,
    /// It was silent for too long, or the process ends.
    TimedOut,
}

/// A connection.
pub(super) struct Line {
    stream: TcpStream,
    input: Vec<u8>,
    /// The database that the target was told last.
    pub database: Option<i64>,
}

impl Line {
    /// Connects, to the first of the target's addresses that takes it.
    /// Errors: as for a silent target when it has no address, or none that says anything in time;
    /// else it is lost.
    pub fn connect(destination: &Destination, patience: Duration) -> Result<Line, Broken> {
        let host = String::from_utf8_lossy(&destination.host);
        let addresses = (&*host, port_of(&destination.port)).to_socket_addrs();
        let mut broken = Broken::TimedOut;
        for address in addresses.map_err(|_| Broken::TimedOut)? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|_| Broken::Lost)?;
                    return Ok(Line { stream, input: Vec::new(), database: None });
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(_) => broken = Broken::Lost,
            }
        }
        Err(broken)
    }

    /// Sends all of it.
    pub fn write(
        &mut self,
        mut bytes: &[u8],
        migration: &Migration,
        stage: &Stage,
    ) -> Result<(), Broken> {
        let look_up = Some(LOOK_UP.min(migration.patience));
        self.stream.set_write_timeout(look_up).map_err(|_| Broken::Lost)?;
        let mut heard = Instant::now();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(Broken::Lost),
                Ok(count) => {
                    bytes = &bytes[count..];
                    heard = Instant::now();
                }
                Err(error) => go_on(error.kind(), heard, migration, stage)?,
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    pub fn read(&mut self, migration: &Migration, stage: &Stage) -> Result<Vec<u8>, Broken> {
        let look_up = Some(LOOK_UP.min(migration.patience));
        self.stream.set_read_timeout(look_up).map_err(|_| Broken::Lost)?;
        let (mut looked_at, mut heard) = (0, Instant::now());
        loop {
            if let Some(end) = self.input[looked_at..].iter().position(|byte| *byte == b'\n') {
                let rest = self.input.split_off(looked_at + end + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            looked_at = self.input.len();
            if looked_at > LINE_BYTES_MAX {
                return Err(Broken::Lost);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Broken::Lost),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    heard = Instant::now();
                }
                Err(error) => go_on(error.kind(), heard, migration, stage)?,
            }
        }
    }
}

/// The number that a text begins with, as Redis reads ports; 0 when there is none.
fn port_of(text: &[u8]) -> u16 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |port: u16, digit| port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0')))
}

/// Is an error only a pause that is not too long?
fn go_on(
    kind: ErrorKind,
    heard: Instant,
    migration: &Migration,
    stage: &Stage,
) -> Result<(), Broken> {
    match kind {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let is_late = heard.elapsed() >= migration.patience || stage.is_given_up();
            if is_late { Err(Broken::TimedOut) } else { Ok(()) }
        }
        _ => Err(Broken::Lost),
    }
}
