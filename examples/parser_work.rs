//! The pieces of work of `benches/parser.rs` as a program, for `ringraft-bench instructions`.

#[path = "../shards/examples/driver/mod.rs"]
mod driver;
#[path = "../benches/work/mod.rs"]
mod work;

fn main() -> std::process::ExitCode {
    driver::main(work::WORKS)
}
