//! `ringraft ctl`, and this program under the name `kvsctl`: the commands of raft-kv's tool, with
//! its output and exit codes.
//!
//! One command, one reply, printed on standard output, be it an error: exit code 0. Whatever else
//! goes wrong is a line with date and time on standard error: exit code 1.

use super::command_line::{address, credentials, with_credentials};
use super::{DECISION_PATIENCE, print};
use crate::client::{Answer, Client, Target, failed};
use clap::{Arg, ArgMatches, Command};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;

/// The name under which this program is that tool.
pub const NAME: &str = "kvsctl";
/// Where it asks if it is not told.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:2315";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Send this and print the reply.
    Ask(Target, Vec<Vec<u8>>),
    /// Print a text.
    Show(String),
    /// The command line is wrong: why.
    Misused(String),
}

/// Was this program started under that tool's name?
pub fn is_named(program: &OsString) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Reads a command line, program name first. `name` is what the help calls it.
pub fn read(name: &'static str, default: &'static str, arguments: &[OsString]) -> Call {
    let mut command = command(name, default);
    let matches = match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Call::Show(error.to_string()),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.strip_prefix("error: ").unwrap_or(line).trim_end_matches(':');
            return Call::Misused(format!("{line} ({name} --help)"));
        }
    };
    let words = match words(&matches) {
        Some(words) => words,
        // A command that has none of its subcommands shows them.
        None => {
            let of = matches.subcommand_name().and_then(|name| command.find_subcommand_mut(name));
            let shown = match of {
                Some(of) => of.render_help(),
                None => command.render_help(),
            };
            return Call::Show(shown.to_string());
        }
    };
    match address(&matches, default).and_then(|target| credentials(&matches, target)) {
        Ok(target) => Call::Ask(target, words),
        Err(line) => Call::Misused(line),
    }
}

/// The request, with the empty words that the tool sends.
fn words(matches: &ArgMatches) -> Option<Vec<Vec<u8>>> {
    let (name, mut matches) = matches.subcommand()?;
    let mut words = vec![name.as_bytes().to_vec()];
    if name == "member" {
        let (name, of) = matches.subcommand()?;
        words.push(name.as_bytes().to_vec());
        matches = of;
    }
    for name in ["key", "id", "value", "address-of"] {
        if let Ok(Some(word)) = matches.try_get_one::<OsString>(name) {
            words.push(word.clone().into_vec());
        }
    }
    if name == "member" {
        words.resize(4, Vec::new());
    }
    Some(words)
}

/// The command line as clap knows it.
pub fn command(name: &'static str, default: &'static str) -> Command {
    let word = |id: &'static str, shown: &'static str| {
        Arg::new(id)
            .value_name(shown)
            .required(true)
            .value_parser(clap::value_parser!(OsString))
            .allow_negative_numbers(true)
    };
    let key = || word("key", "KEY");
    let id = || word("id", "ID");
    let member =
        Command::new("member")
            .about("The nodes of the cluster")
            .subcommand(
                Command::new("add")
                    .about("Says how a node joins: it does so by itself")
                    .args([id(), word("address-of", "ADDRESS")]),
            )
            .subcommand(Command::new("remove").about("Sees a node off").arg(id()))
            .subcommand(Command::new("list").about(
                "A line for each node: id, address, suffrage (0: it votes), whether it leads",
            ));
    let address = Arg::new("address")
        .short('a')
        .long("address")
        .value_name("HOST:PORT")
        .default_value(default)
        .global(true)
        .help("The server to ask; a port alone is one of this machine");
    let command = Command::new(name)
        .bin_name(name)
        .about(
            "raft-kv's kvsctl: sends one command and prints the reply.\n\
             Exit code 0 when there was a reply, an error too; 1 when there was none.",
        )
        .arg(address)
        .subcommand(Command::new("SET").about("Set a key").args([key(), word("value", "VALUE")]))
        .subcommand(Command::new("GET").about("Print the value of a key, or null").arg(key()))
        .subcommand(Command::new("DEL").about("Delete a key, print how many there were").arg(key()))
        .subcommand(member);
    with_credentials(command)
}

/// Does it. `now_s` is the time since the Unix epoch.
pub fn run(call: &Call, now_s: u64) -> ExitCode {
    let done = match call {
        Call::Show(text) => {
            print(text);
            Ok(())
        }
        Call::Misused(line) => Err(line.clone()),
        Call::Ask(target, words) => ask(target, words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("{} {line}", stamp(now_s));
            ExitCode::FAILURE
        }
    }
}

fn ask(target: &Target, words: &[Vec<u8>]) -> Result<(), String> {
    let mut client = Client::connect_within(target, DECISION_PATIENCE)?;
    let answer = client.ask_plainly(words).map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    show(&answer, &mut text);
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}

fn show(answer: &Answer, out: &mut Vec<u8>) {
    match answer {
        Answer::Simple(text) | Answer::Error(text) => out.extend(text.as_bytes()),
        Answer::Integer(number) => out.extend(number.to_string().as_bytes()),
        Answer::Bulk(bytes) => out.extend(bytes),
        Answer::Null => out.extend(b"null"),
        Answer::Array(answers) => return answers.iter().for_each(|answer| show(answer, out)),
    }
    out.push(b'\n');
}

/// `2026/11/28 17:39:57`, UTC.
fn stamp(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = crate::dates::utc(seconds);
    format!("{year}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        let words = line.split_ascii_whitespace().map(OsString::from);
        read(NAME, ADDRESS_DEFAULT, &words.collect::<Vec<_>>())
    }

    fn check(line: &str, address: &str, words: &[&str]) {
        let Call::Ask(target, asked) = call(line) else { panic!("{line}: {:?}", call(line)) };
        assert_eq!(target.to_string(), address, "{line}");
        assert_eq!(asked, words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(), "{line}");
    }

    #[test]
    fn command_lines() {
        command(NAME, ADDRESS_DEFAULT).debug_assert();
        check("kvsctl SET k v", ADDRESS_DEFAULT, &["SET", "k", "v"]);
        check("kvsctl SET k -5", ADDRESS_DEFAULT, &["SET", "k", "-5"]);
        check("kvsctl GET k -a 127.0.0.1:2317", "127.0.0.1:2317", &["GET", "k"]);
        check("kvsctl -a 2317 DEL k", "127.0.0.1:2317", &["DEL", "k"]);
        check("kvsctl --address=[::1]:1 member list", "[::1]:1", &["member", "list", "", ""]);
        check("kvsctl member add 2 a:1", ADDRESS_DEFAULT, &["member", "add", "2", "a:1"]);
        check("kvsctl member remove 2", ADDRESS_DEFAULT, &["member", "remove", "2", ""]);
    }

    #[test]
    fn without_a_command_it_shows_its_help() {
        for line in ["kvsctl", "kvsctl help", "kvsctl --help", "kvsctl member", "kvsctl SET -h"] {
            let Call::Show(text) = call(line) else { panic!("{line}: {:?}", call(line)) };
            assert!(text.contains("Usage: kvsctl"), "{line}: {text}");
        }
    }

    #[test]
    fn commands_are_in_upper_case_and_counted() {
        for (line, cause) in [
            ("kvsctl set k v", "unrecognized subcommand 'set'"),
            ("kvsctl SET k", "the following required arguments were not provided"),
            ("kvsctl GET k v", "unexpected argument 'v' found"),
            ("kvsctl member put", "unrecognized subcommand 'put'"),
            ("kvsctl GET k -a nowhere", "'nowhere' is no HOST:PORT"),
        ] {
            let Call::Misused(text) = call(line) else { panic!("{line}: {:?}", call(line)) };
            assert!(text.starts_with(cause), "{line}: {text}");
        }
    }

    #[test]
    fn replies() {
        for (answer, text) in [
            (Answer::Simple("OK".into()), "OK\n"),
            (Answer::Error("ERR no".into()), "ERR no\n"),
            (Answer::Integer(-1), "-1\n"),
            (Answer::Bulk(b"a\nb".to_vec()), "a\nb\n"),
            (Answer::Bulk(Vec::new()), "\n"),
            (Answer::Null, "null\n"),
            (Answer::Array(vec![Answer::Integer(1), Answer::Null]), "1\nnull\n"),
        ] {
            let mut out = Vec::new();
            show(&answer, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970/01/01 00:00:00"),
            (951_827_696, "2000/02/29 12:34:56"),
            (1_709_251_199, "2024/02/29 23:59:59"),
            (1_735_689_600, "2025/01/01 00:00:00"),
            (4_107_542_400, "2100/03/01 00:00:00"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }
}
