//! What is typed to use the tools.

use super::member::Act;
use super::{Tool, dev_cluster, kvsctl};
use crate::client::{Target, Tls};
use crate::net::tls::{TlsSettings, config};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::PathBuf;

/// Where the tools ask if they are not told.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:6379";

/// The name under which `ringraft ctl` shows its help.
pub const CTL: &str = "ringraft ctl";

/// The subcommands.
pub fn commands() -> [Command; 4] {
    let ctl = kvsctl::command("ctl", ADDRESS_DEFAULT);
    [dev_cluster(), cluster(), member(), ctl]
}

/// Reads what follows the name of one of them.
/// Errors: one line.
pub fn read(name: &str, matches: &ArgMatches) -> Result<Tool, String> {
    let (act, of) = matches.subcommand().expect("clap demands the subcommand");
    if name == "dev-cluster" {
        return dev_cluster_call(act, of).map(Tool::DevCluster);
    }
    let target = credentials(of, address(of, ADDRESS_DEFAULT)?)?;
    let node = || of.get_one::<String>("node").cloned().expect("clap demands it");
    Ok(match act {
        "status" => Tool::Status(target),
        "add" => Tool::Member(target, Act::Add(node())),
        "remove" if of.get_flag("force") => Tool::Member(target, Act::RemoveAnyway(node())),
        "remove" => Tool::Member(target, Act::Remove(node())),
        _ => Tool::Member(target, Act::List),
    })
}

/// How to use one of them, for who has left something out.
pub fn usage(name: &str) -> Option<&'static str> {
    Some(match name {
        "dev-cluster" => {
            "say what to do: ringraft dev-cluster start, ringraft dev-cluster stop, ringraft dev-cluster status, ringraft dev-cluster kill N"
        }
        "cluster" => "say what to do: ringraft cluster status",
        "member" => {
            "say what to do: ringraft member list, ringraft member remove ID, ringraft member add ADDRESS"
        }
        _ => return None,
    })
}

/// The server that `--address` names.
/// Errors: it is no address.
pub fn address(matches: &ArgMatches, default: &str) -> Result<Target, String> {
    Target::parse(matches.get_one::<String>("address").map_or(default, String::as_str))
}

/// Who asks it, and how. A password in the command line is seen by all who list processes, one in
/// the environment is not. Errors: a file of TLS that is not there or does not do, or none is
/// named.
pub fn credentials(matches: &ArgMatches, target: Target) -> Result<Target, String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let from_environment = || std::env::var("REDISCLI_AUTH").unwrap_or_default();
    Ok(Target {
        user: text("user").unwrap_or_default(),
        password: text("pass").unwrap_or_else(from_environment),
        tls: tls(matches)?,
        ..target
    })
}

/// Options of TLS, by redis-cli's names, the settings that they are here, and what they are. The
/// setting is the argument's id: kvsctl has keys of its own.
const TLS_FILES: [(&str, &str, &str, &str); 4] = [
    ("cacert", "tls-ca-cert-file", "FILE", "Authorities of the server's certificate, PEM"),
    ("cacertdir", "tls-ca-cert-dir", "DIR", "A folder with such files"),
    ("cert", "tls-cert-file", "FILE", "The certificate to show, if the server wants one, PEM"),
    ("key", "tls-key-file", "FILE", "Its private key, PEM"),
];

fn tls(matches: &ArgMatches) -> Result<Option<Tls>, String> {
    let files = TLS_FILES.map(|(_, id, ..)| matches.get_one::<String>(id).cloned());
    if !matches.get_flag("tls") {
        let named = TLS_FILES.iter().zip(&files).find(|(_, file)| file.is_some());
        return named.map_or(Ok(None), |((option, ..), _)| Err(format!("--{option} is for --tls")));
    }
    let [ca_cert_file, ca_cert_dir, cert_file, key_file] = files.map(Option::unwrap_or_default);
    if ca_cert_file.is_empty() && ca_cert_dir.is_empty() {
        return Err("--tls needs --cacert FILE or --cacertdir DIR: whom is to be trusted?".into());
    }
    if cert_file.is_empty() != key_file.is_empty() {
        return Err("--cert and --key go together".into());
    }
    let settings =
        TlsSettings { ca_cert_file, ca_cert_dir, cert_file, key_file, ..TlsSettings::default() };
    let config = config::load_tool(&settings).map_err(|(setting, cause)| {
        let option = TLS_FILES.iter().find(|(_, id, ..)| *id == setting);
        format!("--{}: {cause}", option.map_or("tls", |(option, ..)| option))
    })?;
    Ok(Some(Tls(config)))
}

/// The options that [`credentials`] reads.
pub fn with_credentials(command: Command) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).global(true).help(help)
    };
    let files = TLS_FILES.map(|(name, id, value, help)| option(name, value, help).id(id));
    let others = [
        option("user", "NAME", "Who asks, if it is not the default user"),
        option("pass", "PASSWORD", "The password; if not given, what REDISCLI_AUTH says"),
        Arg::new("tls")
            .long("tls")
            .action(ArgAction::SetTrue)
            .global(true)
            .help("Speak TLS: the address is that of a tls-port"),
    ];
    command.args(others).args(files)
}

fn with_server(command: Command) -> Command {
    let address = Arg::new("address")
        .short('a')
        .long("address")
        .value_name("HOST:PORT")
        .global(true)
        .default_value(ADDRESS_DEFAULT)
        .help("The node to ask; a port alone is one of this machine");
    with_credentials(command.arg(address)).subcommand_required(true)
}

fn cluster() -> Command {
    let status = Command::new("status")
        .about("Show the nodes, who leads, how far each is behind, what is wrong and what to do")
        .after_help(
            "state is how the node that is asked sees the others; behind counts entries of the log that the leader has.\n\
             Exit code 0 when all is well, 1 when something is wrong or nobody answers, 2 when the options are wrong.",
        );
    with_server(Command::new("cluster").about("Look at a cluster").subcommand(status))
}

fn member() -> Command {
    let node = |shown: &'static str, help: &'static str| {
        Arg::new("node").value_name(shown).required(true).help(help)
    };
    let add = Command::new("add")
        .about("Say how the node at an address joins: it does so by itself, at its first start")
        .arg(node("ADDRESS", "Where it will be"));
    let remove = Command::new("remove")
        .about("See a node off, for ever: others take over what it has, then it ends")
        .arg(node("ID", "Its number or its address"))
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Even if shards are left without a majority of nodes that are reached"),
        );
    let list = Command::new("list")
        .about("A line for each node: id, address, suffrage (0: it votes), whether it leads");
    let command = Command::new("member").about("See the nodes of a cluster, and see one off");
    with_server(command.subcommands([list, remove, add]))
}

fn dev_cluster() -> Command {
    let number = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(clap::value_parser!(u16).range(1..))
            .help(help)
    };
    let start = Command::new("start")
        .about("Start the nodes that do not run, make the cluster if it is not there, and wait until it is whole")
        .arg(number("nodes", "N", "How many nodes [default: 3, or as many as there are]"))
        .arg(number("port", "PORT", "Port of node 1; the others have the next ones [default: 7001]"))
        .arg(
            Arg::new("options")
                .value_name("SERVER OPTIONS")
                .last(true)
                .num_args(1..)
                .help("Options for each node, such as -- --fsync everysec; remembered for the next start"),
        )
        .after_help(
            "Prints the address of each node, one a line. Nodes are of this machine, and live on when the shell ends;\n\
             each has its data, its log and its pid below DIR/node-N.",
        );
    let kill = Command::new("kill").about("Kill a node, as a crash would (SIGKILL)").arg(
        Arg::new("node")
            .value_name("N")
            .required(true)
            .value_parser(clap::value_parser!(u16).range(1..))
            .help("Its number, from 1"),
    );
    let dir = Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .default_value(dev_cluster::DIRECTORY_DEFAULT)
        .global(true)
        .help("Where the cluster lives");
    Command::new("dev-cluster")
        .about("A cluster on this machine to try things with: start it, kill nodes, stop it")
        .subcommand_required(true)
        .arg(dir)
        .subcommand(start)
        .subcommand(Command::new("stop").about("End all nodes in order (SIGTERM), keep their data"))
        .subcommand(Command::new("status").about(
            "A line for each node, what is wrong and what to do; exit code 1 if something is",
        ))
        .subcommand(kill)
}

fn dev_cluster_call(act: &str, of: &ArgMatches) -> Result<dev_cluster::Call, String> {
    let number = |name: &str| of.get_one::<u16>(name).copied();
    let act = match act {
        "start" => dev_cluster::Act::Start(dev_cluster::Wanted {
            nodes: number("nodes"),
            port: number("port"),
            options: of.get_many::<String>("options").map(|all| all.cloned().collect()),
        }),
        "stop" => dev_cluster::Act::Stop,
        "status" => dev_cluster::Act::Status,
        _ => dev_cluster::Act::Kill(number("node").expect("clap demands it")),
    };
    let directory = of.get_one::<PathBuf>("dir").cloned().expect("it has a default");
    Ok(dev_cluster::Call { directory, act })
}
