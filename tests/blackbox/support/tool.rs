//! Running command-line tools (redis-cli, redis-benchmark) to their end.

use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;

use super::PATIENCE;

/// How a tool ended and what it printed.
pub struct Outcome {
    /// Its exit code.
    pub status: ExitStatus,
    /// Standard output, then standard error.
    pub text: String,
}

/// Runs `program arguments` with `input` on its standard input. A tool that is silent and
/// unfinished for longer than [`PATIENCE`] after its last stream should have closed is killed and
/// fails the test.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error} (tests/run installs it)"));
    let mut stdin = child.stdin.take().expect("piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A tool may end before it has read everything; its exit code says what that means.
            let _ = stdin.write_all(input);
        });
        let streams: Vec<Box<dyn Read + Send>> = vec![
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        for (place, mut stream) in streams.into_iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = sender.send((place, String::from_utf8_lossy(&bytes).into_owned()));
            });
        }
        let mut texts = [String::new(), String::new()];
        for _ in 0..texts.len() {
            match receiver.recv_timeout(PATIENCE * 2) {
                Ok((place, text)) => texts[place] = text,
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("{program} {arguments:?} did not end");
                }
            }
        }
        Outcome { status: child.wait().expect("our own child"), text: texts.concat() }
    })
}

/// Runs redis-cli against a port; its exit code must be 0. Returns what it printed.
pub fn redis_cli(port: u16, arguments: &[&str], input: &[u8]) -> String {
    let port = port.to_string();
    let outcome = run("redis-cli", &[&["-p", &port], arguments].concat(), input);
    assert!(
        outcome.status.success(),
        "redis-cli {arguments:?}: {}\n{}",
        outcome.status,
        outcome.text
    );
    outcome.text
}
