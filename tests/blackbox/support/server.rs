//! A server process under test: started on a port of its own with a directory of its own, ready
//! when it says so and answers, killed by its pid when the test lets go of it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use tempfile::TempDir;

use super::client::Client;
use super::seccomp::Filter;
use super::value::Value;
use super::{PATIENCE, eventually, system};

/// Ports are taken below the range from which the kernel picks its own.
const PORT_FIRST: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// Which program a test talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// The server of this repository.
    Ringraft,
    /// The real redis-server, to compare with.
    Redis,
}

/// A running (or stopped, and restartable) server. Dropping it kills the process and removes its
/// directory.
pub struct Server {
    program: Program,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    port: u16,
    directory: TempDir,
    filter: Option<Filter>,
    /// What runs the program, and its arguments before the program's name.
    runner: Vec<String>,
    process: Option<Process>,
}

/// A server that ended instead of becoming ready.
pub struct Refusal {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it printed.
    pub output: String,
}

impl Server {
    /// Starts the server of this repository with these further arguments.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_program(Program::Ringraft, arguments)
    }

    /// Starts the real redis-server without persistence.
    pub fn start_redis(arguments: &[&str]) -> Server {
        Server::start_program(Program::Redis, arguments)
    }

    /// Starts either program.
    pub fn start_program(program: Program, arguments: &[&str]) -> Server {
        let mut server = Server::prepare(program, arguments);
        server.launch();
        server
    }

    /// A server that has a port and a directory and is not started yet.
    pub fn prepare(program: Program, arguments: &[&str]) -> Server {
        Server {
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            port: free_port(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            filter: None,
            runner: Vec::new(),
            process: None,
        }
    }

    /// Starts the process; panics with its output when it does not become ready.
    pub fn launch(&mut self) {
        if let Err(refusal) = self.try_launch() {
            panic!("the server did not start: {refusal}");
        }
    }

    /// Starts the process and does not wait for it to be ready.
    pub fn launch_only(&mut self) {
        assert!(self.process.is_none(), "launched twice");
        self.process = Some(Process::spawn(&mut self.command()));
    }

    /// Waits until the process has printed something.
    pub fn wait_for_line(&mut self, text: &str) -> bool {
        self.process.as_mut().expect("running").output.wait_for(text)
    }

    /// Starts the process; a server that ends before it is ready is returned as a refusal.
    pub fn try_launch(&mut self) -> Result<(), Refusal> {
        assert!(self.process.is_none(), "launched twice");
        let mut process = Process::spawn(&mut self.command());
        let ready = match self.program {
            Program::Ringraft => "ready on ",
            Program::Redis => "Ready to accept connections",
        };
        if process.output.wait_for(ready) {
            self.process = Some(process);
            let port = self.port;
            eventually("a PING is answered", || {
                let mut client = Client::try_connect(port).ok()?;
                let reply = client.try_call(&["PING"]).ok()?;
                (reply == Value::Simple("PONG".into()) || reply.is_error()).then_some(())
            });
            return Ok(());
        }
        let status = process.wait();
        Err(Refusal { status, output: process.output.text() })
    }

    /// Starts the process and kills it at the first sign of life, which is in the middle of its
    /// recovery when there is something to recover.
    pub fn launch_and_kill(&mut self) {
        let mut process = Process::spawn(&mut self.command());
        process.output.wait_for("");
        process.child.kill().expect("our own child");
        process.wait();
    }

    /// Replaces the further arguments of the next launch.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Lets the process make no other system calls than a filter allows, from the next launch on.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = Some(filter);
    }

    /// From the next launch on another program runs this one, and becomes it: `ip netns exec NAME`.
    #[allow(dead_code)] // The tests of clusters use it.
    pub fn set_runner(&mut self, words: &[&str]) {
        self.runner = words.iter().map(ToString::to_string).collect();
    }

    /// Sets a variable of the environment for the next launch.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// The command line, for a test that wants to run a second process on the same directory.
    pub fn command(&self) -> Command {
        let mut command = match self.program {
            Program::Ringraft => match self.runner.split_first() {
                Some((runner, arguments)) => {
                    let mut command = Command::new(runner);
                    command.args(arguments).arg(binary());
                    command
                }
                None => Command::new(binary()),
            },
            Program::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--save", "", "--daemonize", "no"]);
                command
            }
        };
        command
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.arguments)
            .args(self.placement())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path());
        if let Some(filter) = &self.filter {
            filter.confine(&mut command);
        }
        command
    }

    /// Which cores the server uses where the test does not say.
    fn placement(&self) -> Vec<String> {
        const OPTION: &str = "--cores-in-use";
        let says = self.arguments.iter().any(|argument| argument == OPTION);
        match std::env::var("RINGRAFT_CORES_IN_USE") {
            Ok(word) if self.program == Program::Ringraft && !says => vec![OPTION.into(), word],
            _ => Vec::new(),
        }
    }

    /// From the next launch on it listens elsewhere.
    #[allow(dead_code)] // The tests of clusters use it.
    pub fn take_another_port(&mut self) {
        assert!(self.process.is_none(), "it still listens");
        self.port = free_port();
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// Its data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("running");
        process.child.kill().expect("our own child");
        process.wait();
    }

    /// SIGTERM; returns how the process ended and what it had printed.
    pub fn terminate(&mut self) -> (ExitStatus, String) {
        system::send_signal(self.pid(), libc::SIGTERM);
        self.wait_for_exit()
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_exit(&mut self) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("running");
        let status = process.wait();
        (status, process.output.text())
    }

    /// SIGTERM, an exit code of 0, and a start on the same port and directory.
    pub fn restart(&mut self) {
        let (status, output) = self.terminate();
        assert!(status.success(), "a graceful stop ended with {status}:\n{output}");
        self.launch();
    }

    /// The value of a field of INFO.
    pub fn info(&self, field: &str) -> String {
        let text = self.client().call(&["INFO", "everything"]).text();
        let prefix = format!("{field}:");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("INFO has no {field}:\n{text}"))
            .to_string()
    }

    /// A field of INFO as a number.
    pub fn info_number(&self, field: &str) -> i64 {
        let text = self.info(field);
        text.parse().unwrap_or_else(|_| panic!("{field} is {text}"))
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("running")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process.as_mut() {
            let _ = process.child.kill();
            process.wait();
            if std::thread::panicking() {
                eprintln!("--- the server printed:\n{}\n---", process.output.text());
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.status, self.output)
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    match std::env::var_os("RINGRAFT_BINARY") {
        Some(path) => std::path::absolute(path).expect("a path"),
        None => env!("CARGO_BIN_EXE_ringraft").into(),
    }
}

/// A port on which nothing listens. Ports differ between the tests of one run, because SO_REUSEPORT
/// would let two servers share one without a word.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::process::id() as u16;
    for _ in 0..PORT_COUNT {
        let offset = base.wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORT_FIRST + offset % PORT_COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {PORT_FIRST} and {}", PORT_FIRST + PORT_COUNT);
}

/// A child whose output is collected line by line.
struct Process {
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    lines: Vec<String>,
    streams_ended: usize,
}

impl Process {
    fn spawn(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Arc::new(Output::default());
        output.collect(child.stdout.take().expect("piped"));
        output.collect(child.stderr.take().expect("piped"));
        Process { child, output }
    }

    /// Waits, within [`PATIENCE`], for the process to end. Its streams close when it does.
    fn wait(&mut self) -> ExitStatus {
        if !self.output.wait_until(|state| state.streams_ended == 2) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("the server did not end; it printed:\n{}", self.output.text());
        }
        self.child.wait().expect("our own child")
    }
}

impl Output {
    fn collect(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                output.locked().lines.push(line);
                output.changed.notify_all();
            }
            output.locked().streams_ended += 1;
            output.changed.notify_all();
        });
    }

    /// True when a line with `text` came, false when the process ended (or was silent) without one.
    fn wait_for(&self, text: &str) -> bool {
        let found = |state: &OutputState| state.lines.iter().any(|line| line.contains(text));
        self.wait_until(|state| found(state) || state.streams_ended == 2) && found(&self.locked())
    }

    fn wait_until(&self, condition: impl Fn(&OutputState) -> bool) -> bool {
        let begin = Instant::now();
        let mut state = self.locked();
        while !condition(&state) {
            let Some(left) = PATIENCE.checked_sub(begin.elapsed()) else { return false };
            state = self.changed.wait_timeout(state, left).expect("no collector panicked").0;
        }
        true
    }

    fn text(&self) -> String {
        self.locked().lines.join("\n")
    }

    fn locked(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().expect("no collector panicked")
    }
}
