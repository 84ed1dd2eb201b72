//! Tools around clusters: `ringraft cluster`, `ringraft member`, `ringraft ctl` (kvsctl) and
//! `ringraft dev-cluster`.
//!
//! All but the last are clients: they ask a node and say what it answers. The last one starts and
//! ends processes of this machine. What a tool was asked for goes to standard output, everything
//! else to standard error.

pub mod command_line;
pub mod dev_cluster;
pub mod kvsctl;
pub mod member;
pub mod picture;
pub mod process;
pub mod status;

use crate::client::Target;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How long a node may take to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a node may take to do what others must agree on: longer than it waits for a leader
/// itself.
const DECISION_PATIENCE: Duration = Duration::from_secs(30);

/// What a tool is asked for.
#[derive(Debug, PartialEq)]
pub enum Tool {
    /// `cluster status`.
    Status(Target),
    /// `member ...`.
    Member(Target, member::Act),
    /// `ctl ...`, or anything by the name of kvsctl.
    Ctl(kvsctl::Call),
    /// `dev-cluster ...`.
    DevCluster(dev_cluster::Call),
}

impl Tool {
    /// Does it; the exit code is 1 when it failed, or found that something is wrong. `now_s` is the
    /// time since the Unix epoch.
    pub fn run(&self, now_s: u64) -> ExitCode {
        let done = match self {
            Tool::Status(target) => status::run(target),
            Tool::Member(target, act) => member::run(target, act),
            Tool::Ctl(call) => return kvsctl::run(call, now_s),
            Tool::DevCluster(call) => dev_cluster::run(call),
        };
        match done {
            Ok(State::Well) => ExitCode::SUCCESS,
            Ok(State::Wrong) => ExitCode::FAILURE,
            Err(line) => {
                tell(&line);
                ExitCode::FAILURE
            }
        }
    }
}

/// What a tool has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All is as it should be.
    Well,
    /// Something is to be done; it was said what.
    Wrong,
}

/// Writes what was asked for.
fn print(text: &str) {
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a line beside it.
fn tell(line: &str) {
    eprintln!("ringraft: {line}");
}

/// Rows of words in columns, the first row being the head. A column of numbers is flush right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let is_number = |text: &str| text == "-" || text.bytes().all(|byte| byte.is_ascii_digit());
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let numbers: Vec<bool> =
        (0..columns).map(|column| rows.iter().skip(1).all(|row| is_number(&row[column]))).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, word)| match numbers[column] {
            true => format!("{word:>0$}", widths[column]),
            false => format!("{word:<0$}", widths[column]),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_straight_columns() {
        let row = |words: [&str; 3]| words.map(String::from).to_vec();
        let rows = [
            row(["node", "address", "behind"]),
            row(["1", "127.0.0.1:7001", "-"]),
            row(["12", "a:1", "12345678"]),
        ];
        let text = "node  address           behind\n   1  127.0.0.1:7001         -\n  12  a:1             12345678\n";
        assert_eq!(table(&rows), text);
    }
}
