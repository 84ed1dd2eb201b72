//! Pieces of work as a program, for `ringraft-bench instructions`: `list` prints their names and
//! operations, `NAME STEPS` does one of them so many times.

use std::process::ExitCode;

use crate::work::Work;

/// Does what the command line says.
pub fn main(works: &[Work]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            for work in works {
                println!("{} {}", work.name, work.operations);
            }
            ExitCode::SUCCESS
        }
        [name, steps] => run(works, name, steps),
        _ => usage(),
    }
}

fn run(works: &[Work], name: &str, steps: &str) -> ExitCode {
    let work = works.iter().find(|work| work.name == name);
    let (Some(work), Ok(steps)) = (work, steps.parse::<u64>()) else { return usage() };
    let mut step = (work.begin)();
    for _ in 0..steps {
        step();
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("expected: list | NAME STEPS");
    ExitCode::FAILURE
}
