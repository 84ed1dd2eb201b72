//! The command line, made from the table of settings: `ringraft [OPTIONS]` starts a server,
//! `ringraft snapshot print FILE`, `ringraft rdb import FILE`, `ringraft rdb export` and the tools
//! for clusters start none.
//!
//! The file that `--config` names is read first; the command line wins over it. Whatever is refused
//! is refused with one line.

use crate::client::Target;
use crate::rdb::export::{Export, Source};
use crate::rdb::import::{Damage, Import};
use crate::rdb::send::Present;
use crate::settings::Settings;
use crate::settings::file;
use crate::settings::row::{Kind, Setting};
use crate::settings::table::TABLE;
use crate::settings::values::join;
use crate::tools::{Tool, command_line, kvsctl};
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use ringraft_shards::rdb::file::Flavor;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Run a server.
    Serve(Box<Settings>),
    /// Write a snapshot's contents as RESP commands.
    PrintSnapshot(PathBuf),
    /// Write an RDB file.
    ExportRdb(Export),
    /// Send what is in an RDB file to a server.
    ImportRdb(Import),
    /// Use a tool for clusters.
    Use(Tool),
    /// Show a text (`--help`, `--version`) and be done.
    Show(String),
}

/// The text after `ringraft` in `--version` and in the first line of the log.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads the command line, program name first, and the file it names.
/// Errors: one line that says what is wrong.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(call) = as_kvsctl(&arguments) {
        return Ok(Request::Use(Tool::Ctl(call)));
    }
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Request::Show(error.to_string())),
        Err(error) => {
            let first = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
            return Err(one_line(&error, first));
        }
    };
    if let Some(("rdb", rdb)) = matches.subcommand() {
        return match rdb.subcommand() {
            Some(("import", import)) => Ok(Request::ImportRdb(self::import(import))),
            Some((_, export)) => self::export(export).map(Request::ExportRdb),
            None => unreachable!("clap demands the subcommand"),
        };
    }
    if let Some((name @ ("dev-cluster" | "cluster" | "member"), tool)) = matches.subcommand() {
        return command_line::read(name, tool).map(Request::Use);
    }
    if let Some((_, snapshot)) = matches.subcommand() {
        let print = snapshot.subcommand_matches("print").expect("clap demands the subcommand");
        return Ok(Request::PrintSnapshot(path(print, "file").expect("clap demands the file")));
    }
    if let Some(file) = path(&matches, "parse-snapshot") {
        return Ok(Request::PrintSnapshot(file));
    }
    settings(&matches).map(|settings| Request::Serve(Box::new(settings)))
}

/// `ringraft ctl`, or anything under the name of kvsctl: its errors are not ours.
fn as_kvsctl(arguments: &[OsString]) -> Option<kvsctl::Call> {
    if arguments.first().is_some_and(kvsctl::is_named) {
        return Some(kvsctl::read(kvsctl::NAME, kvsctl::ADDRESS_DEFAULT, arguments));
    }
    let is_ctl = arguments.get(1).is_some_and(|word| word == "ctl");
    is_ctl.then(|| kvsctl::read(command_line::CTL, command_line::ADDRESS_DEFAULT, &arguments[1..]))
}

fn settings(matches: &ArgMatches) -> Result<Settings, String> {
    let mut settings = Settings::default();
    if let Some(file) = path(matches, "config").or_else(|| path(matches, "config-file")) {
        file::load(&file, &mut settings)?;
    }
    for row in TABLE.iter().filter(|row| row.is_option()) {
        if let Some(values) = matches.get_many::<String>(row.name) {
            let value = join(values, " ");
            settings
                .set_row(row, &value)
                .map_err(|cause| format!("option --{} '{value}': {cause}", row.name))?;
        }
    }
    settings.load_rdb = path(matches, "load-rdb");
    settings.settle();
    settings.check().map_err(|(name, cause)| {
        let (row, _) = Setting::find(name).expect("check speaks of rows");
        let value = row.kind.get(&settings);
        format!("{name} = {value} contradicts another setting: {cause}")
    })?;
    Ok(settings)
}

fn import(matches: &ArgMatches) -> Import {
    Import {
        file: path(matches, "file").expect("clap demands the file"),
        target: target(matches),
        present: match matches.get_flag("replace") {
            true => Present::IsReplaced,
            false => Present::Stays,
        },
        damage: match matches.get_flag("keep-good") {
            true => Damage::KeepsGood,
            false => Damage::RefusesAll,
        },
    }
}

fn export(matches: &ArgMatches) -> Result<Export, String> {
    let source = match path(matches, "dir") {
        Some(directory) => Source::Directory(directory),
        None => Source::Server(target(matches)),
    };
    let timed = match matches.get_one::<String>("for").map(String::as_str) {
        None | Some("redis") => Flavor::RedisTimed,
        Some("valkey") => Flavor::ValkeyTimed,
        Some(other) => return Err(format!("option --for '{other}': one of redis, valkey")),
    };
    let out = path(matches, "out").unwrap_or_else(|| "dump.rdb".into());
    Ok(Export { source, out, timed })
}

/// The server that a tool talks to. A password in the command line is seen by all who list
/// processes, one in the environment is not.
fn target(matches: &ArgMatches) -> Target {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let from_environment = || std::env::var("REDISCLI_AUTH").unwrap_or_default();
    Target {
        host: text("host").unwrap_or_else(|| "127.0.0.1".to_string()),
        port: matches.get_one::<u16>("port").copied().unwrap_or(Settings::default().port),
        user: text("user").unwrap_or_default(),
        password: text("password").unwrap_or_else(from_environment),
        tls: None,
    }
}

/// The subcommands for RDB files.
fn rdb() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let file = |arg: Arg| arg.value_parser(clap::value_parser!(PathBuf));
    let server = || {
        [
            option("host", "HOST", "The server's name or address [default: 127.0.0.1]"),
            option("port", "PORT", "Its port [default: 6379]")
                .short('p')
                .value_parser(clap::value_parser!(u16)),
            option("user", "NAME", "Who asks, if it is not the default user"),
            option("password", "PASSWORD", "The password; if not given, what REDISCLI_AUTH says"),
        ]
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let import = Command::new("import")
        .about("Send what is in an RDB file of Redis or Valkey to a running server")
        .arg(file(Arg::new("file").value_name("FILE").required(true).help("The RDB file")))
        .args(server())
        .arg(flag("replace", "Overwrite keys that are there"))
        .arg(flag("keep-good", "Of a damaged file, import what precedes the damage"));
    let export = Command::new("export")
        .about(
            "Write an RDB file of all shards as they are at one moment: of a running server on this machine, or of a directory",
        )
        .arg(
            file(option("dir", "DIR", "The directory of a stopped server"))
                .conflicts_with_all(["host", "port", "user", "password"]),
        )
        .args(server())
        .arg(file(option("out", "FILE", "The file to write [default: dump.rdb]")))
        .arg(option("for", "SERVER", "Who reads deadlines of fields, if there are: redis from 7.4 or valkey from 9.0 [default: redis]"));
    Command::new("rdb")
        .about("Read and write files of Redis")
        .subcommand_required(true)
        .subcommands([import, export])
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(name).cloned()
}

/// The whole command line as clap knows it.
fn command() -> Command {
    let file = |name: &'static str| {
        Arg::new(name).value_name("FILE").value_parser(clap::value_parser!(PathBuf))
    };
    let print = Command::new("print")
        .about("Write a snapshot as RESP commands for redis-cli --pipe")
        .arg(file("file").required(true).help("A ringraft snapshot or kvnode's state.bin"));
    let snapshot = Command::new("snapshot")
        .about("Look into snapshot files")
        .subcommand_required(true)
        .subcommand(print);
    Command::new("ringraft")
        .version(VERSION)
        .about(
            "A Redis-compatible key/value server: one thread per core on io_uring, every write in a Raft log.\n\
             Without options it serves 127.0.0.1:6379 on every allowed core and keeps its data in ./data.",
        )
        .after_help(AFTER_HELP)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommand(snapshot)
        .subcommand(rdb())
        .subcommands(command_line::commands())
        .args(TABLE.iter().filter(|row| row.is_option()).map(|row| {
            Arg::new(row.name)
                .long(row.name)
                .aliases(row.names().skip(1))
                .value_name(row.value_name)
                .help(help(row))
                .help_heading(row.group)
                // A value that begins with a dash: refused as a value, not taken for an option.
                .allow_hyphen_values(row.takes_dashes())
                .action(if row.name == "bind" { ArgAction::Append } else { ArgAction::Set })
                .value_parser(clap::value_parser!(String))
        }))
        .mut_args(|arg| match TABLE.iter().find(|row| arg.get_id() == row.name) {
            Some(row) => arg.short(row.short),
            None => arg,
        })
        .arg(file("config").long("config").short('c').help(
            "Read settings from a TOML file with the names below, such as port = 6380, or from a redis.conf; options given \
             here win",
        ))
        .arg(file("config-file").index(1).conflicts_with("config").help("The same as --config FILE"))
        .arg(file("load-rdb").long("load-rdb").help(
            "Fill a new data directory from an RDB file of Redis or Valkey; passed over when the directory is not new",
        ))
        .arg(file("parse-snapshot").long("parse-snapshot").help("The same as snapshot print FILE"))
}

const AFTER_HELP: &str = "\
SIZE is a number of bytes or has a unit: 1k is 1000, 1kb is 1024; so with m, mb, g, gb.

Example: a cache of 2 GB on the first four cpus, for other machines too
  ringraft --mode cache --maxmemory 2gb --maxmemory-policy allkeys-lru --cores 0-3 --bind 0.0.0.0 --requirepass S";

fn help(row: &Setting) -> StyledStr {
    let choices = match row.kind {
        // The help of `mode` explains both words.
        Kind::Word { words, .. } if row.name != "mode" => format!(": {}", words()),
        _ => String::new(),
    };
    let default = match row.default_text() {
        text if text.is_empty() => "none".to_string(),
        text => text,
    };
    format!("{}{choices} [default: {default}]", row.help).into()
}

/// clap's refusals are paragraphs; the first line says it all but for the suggestion. `command` is
/// the first word.
fn one_line(error: &clap::Error, command: &str) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(first).to_string();
    if error.kind() == ErrorKind::MissingRequiredArgument
        || error.kind() == ErrorKind::MissingSubcommand
        || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let of_files = "say what to do and with which file: ringraft snapshot print FILE, ringraft rdb import FILE, ringraft rdb export";
        line = command_line::usage(command).unwrap_or(of_files).to_string();
    }
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    let suggestion = match suggested.into_iter().find_map(|kind| error.get(kind)) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) => names.first().cloned(),
        _ => None,
    };
    if let Some(name) = suggestion {
        line += &format!("; did you mean {name}?");
    }
    line + " (ringraft --help)"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::{Fsync, Mode};

    fn run(line: &str) -> Result<Request, String> {
        let words = ["ringraft"].into_iter().chain(line.split_ascii_whitespace());
        read(words.map(OsString::from))
    }

    fn serve(line: &str) -> Settings {
        match run(line) {
            Ok(Request::Serve(settings)) => *settings,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        command().debug_assert();
    }

    #[test]
    fn defaults() {
        assert_eq!(serve(""), Settings::default());
    }

    #[test]
    fn every_option_is_taken_under_every_name() {
        for row in TABLE.iter().filter(|row| row.is_option()) {
            let value = row.kind.get(&Settings::default());
            for name in row.names() {
                let argument = OsString::from(format!("--{name}={value}"));
                match read([OsString::from("ringraft"), argument]) {
                    Ok(Request::Serve(settings)) => assert!(settings.is_given(row.name), "{name}"),
                    other => panic!("--{name}={value}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn help_names_every_option_and_its_default() {
        let Ok(Request::Show(help)) = run("--help") else { panic!("--help shows a text") };
        for row in TABLE {
            let shown = help.contains(&format!("--{} <{}>", row.name, row.value_name));
            assert_eq!(shown, row.is_option(), "{}", row.name);
        }
        for text in ["[default: 6379]", "[default: 512mb]", "[default: ./data]", "Example"] {
            assert!(help.contains(text), "{text}\n{help}");
        }
        let Ok(Request::Show(version)) = run("--version") else { panic!("--version shows a text") };
        assert_eq!(version, format!("ringraft {VERSION}\n"));
    }

    #[test]
    fn values_arrive() {
        let settings =
            serve("-p 7000 --shards 4 --cores 0-1,3 --maxmemory 1gb --durability medium");
        assert_eq!((settings.port, settings.shards, settings.maxmemory), (7000, Some(4), 1 << 30));
        assert_eq!(settings.cores, Some(vec![0, 1, 3]));
        assert_eq!(settings.fsync, Fsync::Everysec);
        assert_eq!(serve("--slowlog-log-slower-than -1").slowlog_log_slower_than, -1);
        let cache = serve("--mode cache");
        assert_eq!((cache.mode, cache.fsync, cache.snapshot_interval), (Mode::Cache, Fsync::No, 0));
    }

    #[test]
    fn snapshots_are_printed() {
        for line in ["snapshot print a/b.snap", "--parse-snapshot a/b.snap"] {
            assert_eq!(run(line), Ok(Request::PrintSnapshot("a/b.snap".into())), "{line}");
        }
    }

    #[test]
    fn tools_are_told_whom_to_ask() {
        let target = |line: &str| match run(line) {
            Ok(Request::Use(Tool::Status(target) | Tool::Member(target, _))) => target,
            Ok(Request::Use(Tool::Ctl(kvsctl::Call::Ask(target, _)))) => target,
            other => panic!("{line}: {other:?}"),
        };
        for (line, address) in [
            ("cluster status", "127.0.0.1:6379"),
            ("cluster status -a 7001", "127.0.0.1:7001"),
            ("cluster -a host:1 status", "host:1"),
            ("member list --address [::1]:2", "[::1]:2"),
            ("member remove 3 -a 7001", "127.0.0.1:7001"),
            ("member remove 3 --force -a 7001", "127.0.0.1:7001"),
            ("ctl GET k", "127.0.0.1:6379"),
            ("ctl GET k -a 7001", "127.0.0.1:7001"),
        ] {
            assert_eq!(target(line).to_string(), address, "{line}");
        }
        let asked = target("cluster status --user u --pass p");
        assert_eq!((asked.user.as_str(), asked.password.as_str()), ("u", "p"));
    }

    #[test]
    fn a_test_cluster_is_told_what_to_start() {
        use crate::tools::dev_cluster::{Act, Call, Wanted};
        let call = |line: &str| match run(line) {
            Ok(Request::Use(Tool::DevCluster(call))) => call,
            other => panic!("{line}: {other:?}"),
        };
        let start =
            |directory: &str, wanted| Call { directory: directory.into(), act: Act::Start(wanted) };
        assert_eq!(call("dev-cluster start"), start("./dev-cluster", Wanted::default()));
        let options = ["--fsync", "no", "-c", "f"].map(String::from).to_vec();
        let wanted = Wanted { nodes: Some(5), port: Some(8001), options: Some(options) };
        let line = "dev-cluster start --nodes 5 --port 8001 --dir d -- --fsync no -c f";
        assert_eq!(call(line), start("d", wanted));
        let kill = Call { directory: "d".into(), act: Act::Kill(2) };
        assert_eq!(call("dev-cluster --dir d kill 2"), kill);
        assert_eq!(call("dev-cluster kill 2 --dir d"), kill);
        assert_eq!(call("dev-cluster stop").act, Act::Stop);
        assert_eq!(call("dev-cluster status").act, Act::Status);
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("ringraft.toml");
        std::fs::write(&path, "port = 7000\ntimeout = 9\n").expect("writable");
        let settings = serve(&format!("--config {} --port 7001", path.display()));
        assert_eq!((settings.port, settings.timeout), (7001, 9));
        assert_eq!(settings.config_file, Some(path));
    }

    #[test]
    fn a_file_of_redis_is_read_with_and_without_its_option() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("redis.conf");
        std::fs::write(&path, "port 7000\nsave \"\"\n").expect("writable");
        for line in [format!("{} --timeout 9", path.display()), format!("-c {}", path.display())] {
            let settings = serve(&line);
            assert_eq!((settings.port, settings.mode), (7000, Mode::Cache), "{line}");
            assert_eq!(settings.config_file.as_ref(), Some(&path));
        }
        let settings = serve(&format!("{} --port 7001 --mode store", path.display()));
        assert_eq!((settings.port, settings.mode), (7001, Mode::Store));
        assert_eq!(settings.fsync, Fsync::Always);
    }

    #[test]
    fn refusals_are_one_line() {
        for (line, start) in [
            ("--prot 1", "unexpected argument '--prot' found; did you mean --port?"),
            ("serve", "serve: No such file or directory"),
            ("serve --config x", "the argument '[FILE]' cannot be used with '--config <FILE>'"),
            ("a b", "the subcommand 'b' cannot be used with '[FILE]'"),
            ("--port", "a value is required for '--port <N>' but none was supplied"),
            ("--port 1 --port 2", "the argument '--port <N>' cannot be used multiple times"),
            ("--port -1", "option --port '-1': argument must be between 0 and 65535 inclusive"),
            ("--maxmemory -1", "option --maxmemory '-1': argument must be a memory value"),
            ("--timeout -1", "option --timeout '-1': argument must be between 0 and"),
            ("--bind ::1 --bind 1.2.3", "option --bind '::1 1.2.3': '1.2.3' is neither an IP"),
            ("--port x", "option --port 'x': argument couldn't be parsed into an integer"),
            ("--shards 0", "option --shards '0': argument must be between 1 and 1024 inclusive"),
            (
                "--shards 1025",
                "option --shards '1025': argument must be between 1 and 1024 inclusive",
            ),
            ("--maxmemory lots", "option --maxmemory 'lots': argument must be a memory value"),
            ("--cores 3-1", "option --cores '3-1': '3-1' is no cpu number or range such as 0-3"),
            (
                "--mode both",
                "option --mode 'both': argument(s) must be one of the following: store, cache",
            ),
            (
                "--mode cache --fsync always",
                "fsync = always contradicts another setting: mode cache keeps nothing on disk",
            ),
            ("--mode cache --segment-size 8mb", "segment-size = 8388608 contradicts"),
            ("--metrics-port 6379", "metrics-port = 6379 contradicts"),
            ("--config /nowhere/at.toml", "/nowhere/at.toml: "),
            ("snapshot", "say what to do"),
            ("snapshot print", "say what to do"),
            ("rdb", "say what to do"),
            ("rdb import", "say what to do"),
            ("rdb export --for memcached", "option --for 'memcached': one of redis, valkey"),
            ("rdb export --dir d --port 1", "the argument '--dir <DIR>' cannot be used with"),
            ("--port 1 snapshot print x", ""),
            ("cluster", "say what to do: ringraft cluster status"),
            ("cluster state", "unrecognized subcommand 'state'; did you mean status?"),
            ("cluster status -a nowhere", "'nowhere' is no HOST:PORT, and no port of this machine"),
            ("member remove", "say what to do: ringraft member list, ringraft member remove ID"),
            ("dev-cluster", "say what to do: ringraft dev-cluster start"),
            ("dev-cluster kill", "say what to do: ringraft dev-cluster start"),
            ("dev-cluster kill 0", "invalid value '0' for '<N>': 0 is not in 1..=65535"),
            ("dev-cluster start --nodes 0", "invalid value '0' for '--nodes <N>'"),
            ("dev-cluster start --fsync no", "unexpected argument '--fsync' found"),
        ] {
            let refusal = run(line).expect_err(line);
            assert!(refusal.starts_with(start), "{line}: {refusal}");
            assert!(!refusal.contains('\n'), "{line}: {refusal}");
        }
        assert_eq!(serve("--mode cache --fsync no").fsync, Fsync::No);
    }
}
