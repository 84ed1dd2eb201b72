//! The pieces of work of `benches/engine.rs` as a program, for `ringraft-bench instructions`.

mod driver;
#[path = "../benches/work/mod.rs"]
mod work;

fn main() -> std::process::ExitCode {
    driver::main(work::WORKS)
}
