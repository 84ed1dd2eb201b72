//! One arm of a comparison: a named server command, started on a free port with a directory of its
//! own and killed when dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cpus::{self, Cpus};
use crate::load::Connection;

/// How long a server may take from its start to its first PONG.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// `name=command line`
#[derive(Clone, Debug)]
pub struct ServerCommand {
    /// What the tables call it.
    pub name: String,
    words: Vec<String>,
}

impl FromStr for ServerCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerCommand, String> {
        let (name, command) = text.split_once('=').ok_or("expected name=command")?;
        let words = split_words(command)?;
        if words.is_empty() || name.is_empty() {
            return Err("expected name=command".into());
        }
        Ok(ServerCommand { name: name.to_string(), words })
    }
}

/// A running server.
pub struct Arm {
    /// What the tables call it.
    pub name: String,
    /// Its port on 127.0.0.1.
    pub port: u16,
    child: Child,
    /// Removed with its content when the arm goes.
    _directory: TempDir,
}

impl Arm {
    /// Starts `command --port N --dir DIR` on `cpus` and waits until it answers PING.
    pub fn start(command: &ServerCommand, cpus: Option<&Cpus>) -> Result<Arm, String> {
        let directory = tempfile::tempdir().map_err(|error| format!("a directory: {error}"))?;
        let port = free_port()?;
        let mut process = Command::new(&command.words[0]);
        process
            .args(&command.words[1..])
            .args(["--port", &port.to_string(), "--dir"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = cpus::on(cpus, || process.spawn())
            .map_err(|error| format!("{}: {error}", command.words[0]))?;
        let mut arm = Arm { name: command.name.clone(), port, child, _directory: directory };
        arm.wait_until_ready()?;
        Ok(arm)
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to the server.
    pub fn connect(&self) -> Result<Connection, String> {
        Connection::open(self.port)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_TIME_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at its start: {status}", self.name));
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && self.connect()?.call(&["PING"])? == "+PONG"
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{} did not answer within {START_TIME_MAX:?}", self.name))
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("a free port: {error}"))
}

/// Splits at blanks; quotes of either kind keep blanks and empty words.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(format!("an open quote in: {text}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_command_lines() {
        assert_eq!(
            split_words("a  --save '' \"x y\"z").expect("closed"),
            ["a", "--save", "", "x yz"]
        );
        assert!(split_words("a 'b").is_err());
    }

    #[test]
    fn a_server_needs_a_name_and_a_command() {
        assert!("redis-server".parse::<ServerCommand>().is_err());
        assert!("redis=".parse::<ServerCommand>().is_err());
        let command: ServerCommand = "redis=redis-server --save ''".parse().expect("well formed");
        assert_eq!((command.name.as_str(), command.words.len()), ("redis", 3));
    }
}
