//! The pieces of work of `benches/parser.rs` as a program, for `ringraft-bench instructions`:
//! `list` prints their names and operations, `NAME STEPS` does one of them so many times.

#[path = "../benches/work/mod.rs"]
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            for work in work::WORKS {
                println!("{} {}", work.name, work.operations);
            }
            ExitCode::SUCCESS
        }
        [name, steps] => run(name, steps),
        _ => usage(),
    }
}

fn run(name: &str, steps: &str) -> ExitCode {
    let work = work::WORKS.iter().find(|work| work.name == name);
    let (Some(work), Ok(steps)) = (work, steps.parse::<u64>()) else { return usage() };
    let mut step = (work.begin)();
    for _ in 0..steps {
        step();
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: parser_work list | NAME STEPS");
    ExitCode::FAILURE
}
