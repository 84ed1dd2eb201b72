//! One arm of a comparison: a named server command, started on a free port with a directory of its
//! own, killed by its pid when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::call::Caller;
use crate::client::line::split_words;
use crate::cpus::{self, Cpus};
use crate::machine::command_line;

/// How long a server may take from its start to its first PONG, loading included.
const START_TIME_MAX: Duration = Duration::from_secs(600);

/// How long a server may take to end when asked to.
const STOP_TIME_MAX: Duration = Duration::from_secs(120);

/// Time between two looks whether a server answers: short against what is measured by it.
const LOOK_EVERY: Duration = Duration::from_micros(500);

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

impl ServerCommand {
    /// The same command under another name.
    pub fn renamed(&self, name: impl Into<String>) -> ServerCommand {
        ServerCommand { name: name.into(), words: self.words.clone() }
    }

    /// The same command with a placeholder replaced wherever it stands.
    pub fn replaced(&self, placeholder: &str, by: &str) -> ServerCommand {
        let words = self.words.iter().map(|word| word.replace(placeholder, by)).collect();
        ServerCommand { name: self.name.clone(), words }
    }

    /// The same command with more arguments.
    pub fn with(&self, arguments: &[&str]) -> ServerCommand {
        let more = arguments.iter().map(ToString::to_string);
        let words = self.words.iter().cloned().chain(more).collect();
        ServerCommand { name: self.name.clone(), words }
    }

    /// The command line, as a shell takes it.
    pub fn line(&self) -> String {
        command_line(&self.words)
    }
}

/// A running server.
pub struct Arm {
    /// What the tables call it.
    pub name: String,
    command: ServerCommand,
    cpus: Option<Cpus>,
    port: u16,
    child: Child,
    /// Removed with its content when the arm goes.
    directory: TempDir,
}

impl Arm {
    /// Starts `command --port N --dir DIR` on `cpus` and waits until it answers PING.
    pub fn start(command: &ServerCommand, cpus: Option<&Cpus>) -> Result<Arm, String> {
        let directory = tempfile::tempdir().map_err(|error| format!("a directory: {error}"))?;
        let port = free_port()?;
        let child = spawn(command, cpus, port, directory.path())?;
        let mut arm = Arm {
            name: command.name.clone(),
            command: command.clone(),
            cpus: cpus.cloned(),
            port,
            child,
            directory,
        };
        arm.wait_until_ready()?;
        Ok(arm)
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A new connection to the server.
    pub fn connect(&self) -> Result<Caller, String> {
        Caller::open(self.address())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(|error| format!("kill {}: {error}", self.name))?;
        self.child.wait().map_err(|error| format!("{}: {error}", self.name)).map(|_| ())
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<(), String> {
        cpus::terminate(self.pid())?;
        let begin = Instant::now();
        while begin.elapsed() < STOP_TIME_MAX {
            match self.child.try_wait() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
        Err(format!("{} did not end within {STOP_TIME_MAX:?} of SIGTERM", self.name))
    }

    /// Starts the ended server again in its directory; returns the time from its start until it has
    /// loaded everything.
    pub fn restart(&mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        self.child = spawn(&self.command, self.cpus.as_ref(), self.port, self.directory.path())?;
        self.wait_until_ready()?;
        Ok(begin.elapsed())
    }

    /// Waits until PING is answered by PONG: a server that loads refuses connections, or answers
    /// LOADING.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_TIME_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at its start: {status}", self.name));
            }
            if TcpStream::connect(self.address()).is_ok()
                && let Ok(mut caller) = self.connect()
                && caller.call(&["PING"]).is_ok_and(|reply| reply == "PONG")
            {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
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

fn spawn(
    command: &ServerCommand,
    cpus: Option<&Cpus>,
    port: u16,
    directory: &Path,
) -> Result<Child, String> {
    let mut process = Command::new(&command.words[0]);
    process
        .args(&command.words[1..])
        .args(["--port", &port.to_string(), "--dir"])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    cpus::on(cpus, || process.spawn()).map_err(|error| format!("{}: {error}", command.words[0]))
}

/// A port that nobody listens on.
/// Errors: there is none.
pub fn free_port() -> Result<u16, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("a free port: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_a_name_and_a_command() {
        assert!("redis-server".parse::<ServerCommand>().is_err());
        assert!("redis=".parse::<ServerCommand>().is_err());
        let command: ServerCommand = "redis=redis-server --save ''".parse().expect("well formed");
        assert_eq!((command.name.as_str(), command.words.len()), ("redis", 3));
    }
}
