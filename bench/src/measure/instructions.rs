//! `ringraft-bench instructions`: instructions per operation, counted by callgrind.
//!
//! A count does not depend on what else the machine does, so that a change of one percent is a
//! change. Each piece of work is run twice, with different numbers of steps; the difference holds
//! neither the start of the program nor the setting up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use crate::machine::Machine;
use crate::report::{JsonLines, Table};

/// What to count.
#[derive(Args)]
pub struct Options {
    /// Programs that answer `list` and `NAME STEPS`; `cargo build --release --examples
    /// --workspace` builds them
    #[arg(
        long = "program",
        value_delimiter = ',',
        default_value = "target/release/examples/parser_work,target/release/examples/engine_work"
    )]
    programs: Vec<PathBuf>,
    /// Only pieces of work whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Steps of the shorter run; the longer one has three times as many
    #[arg(long, default_value_t = 200)]
    steps: u64,
    /// Append each count to this file as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    work: &'a str,
    instructions_per_operation: f64,
}

/// Counts and prints.
pub fn run(options: &Options) -> Result<(), String> {
    if options.steps == 0 {
        return Err("--steps: 0 steps count nothing".into());
    }
    let machine = Machine::here();
    println!("{}", machine.text());
    let mut json = JsonLines::open(options.json.as_deref())?;
    json.write(&machine)?;
    let mut table = Table::new(&["work", "", "instructions per operation"]);
    for program in &options.programs {
        let listed = output(Command::new(program).arg("list"))?.0;
        for line in listed.lines() {
            let (name, operations) = line.split_once(' ').ok_or_else(|| odd(program, line))?;
            let operations: u64 = operations.parse().map_err(|_| odd(program, line))?;
            if !name.contains(&options.only) {
                continue;
            }
            let short = count(program, name, options.steps)?;
            let long = count(program, name, 3 * options.steps)?;
            let each = (long as f64 - short as f64) / (2 * options.steps * operations) as f64;
            json.write(&Measurement {
                kind: "instructions",
                work: name,
                instructions_per_operation: each,
            })?;
            table.row(vec![name.to_string(), String::new(), format!("{each:.1}")]);
        }
    }
    print!("{table}");
    Ok(())
}

fn count(program: &Path, name: &str, steps: u64) -> Result<u64, String> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &steps.to_string()]);
    let (_, report) = output(&mut valgrind)?;
    collected(&report).ok_or_else(|| format!("valgrind told no count: {report}"))
}

/// The number behind `Collected :`.
fn collected(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(':').next()?.split_whitespace().next()?.parse().ok()
}

/// What a program writes to its output and its error output.
fn output(command: &mut Command) -> Result<(String, String), String> {
    let what = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() {
        Ok((text, errors))
    } else {
        Err(format!("{what} ended with {}: {errors}", done.status))
    }
}

fn odd(program: &Path, line: &str) -> String {
    format!("{}: list printed {line}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_callgrind_reports() {
        let report = "==12== Events    : Ir\n==12== Collected : 1716032\n==12== \n";
        assert_eq!(collected(report), Some(1_716_032));
        assert_eq!(collected("==12== Events : Ir"), None);
    }
}
