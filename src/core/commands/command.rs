//! COMMAND: what the server knows of its commands, read off the rows.

use super::help::help;
use super::{
    Arity, Call, Command, Gather, Group, Row, Run, Search, Spread, container, plain, table,
};
use crate::glob::Glob;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use ringraft_shards::arguments::Arguments;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[container("command", COMMAND).alone(all).about(
    Group::Server,
    "2.8.13",
    "Describes the commands of the server.",
)];

const COMMAND: &[Row] = &[
    row("count", Arity::Exactly(2), count, "2.8.13", "Count of commands."),
    row("docs", Arity::AtLeast(2), docs, "7.0.0", "Texts about commands."),
    row("getkeys", Arity::AtLeast(3), getkeys, "2.8.13", "The keys of a whole command."),
    row(
        "getkeysandflags",
        Arity::AtLeast(3),
        getkeysandflags,
        "7.0.0",
        "The keys of a whole command, and what it does with them.",
    ),
    row("help", Arity::Exactly(2), help, "5.0.0", "Lists the subcommands."),
    row("info", Arity::AtLeast(2), info, "2.8.13", "Arity, flags and keys of commands."),
    row("list", Arity::AtLeast(2), list, "7.0.0", "Names of commands, all or FILTERBY something."),
];

const fn row(
    name: &'static str,
    arity: Arity,
    run: fn(&Call<'_>, &mut Reply<'_>) -> Outcome,
    since: &'static str,
    summary: &'static str,
) -> Row {
    plain(name, arity, run).of("command").about(Group::Server, since, summary)
}

/// The commands that clients can send, containers as one each.
fn commands() -> impl Iterator<Item = &'static Command> + Clone {
    table::rows().iter().filter(|row| row.parent.is_empty() && !row.flags.internal)
}

fn subcommands(row: &Command) -> impl Iterator<Item = &'static Command> + Clone {
    let (name, is_container) = (row.name, matches!(row.run, Run::Container));
    table::rows_under(name).filter(move |_| is_container)
}

/// A command by its full name, `config|get` for a subcommand.
pub fn named(name: &[u8]) -> Option<&'static Command> {
    let row = match name.iter().position(|&byte| byte == b'|') {
        None => table::find(name),
        Some(bar) => {
            let parent = table::find(&name[..bar])?;
            subcommands(parent)
                .find(|row| row.name.as_bytes().eq_ignore_ascii_case(&name[bar + 1..]))
        }
    };
    row.filter(|row| !row.flags.internal)
}

fn all(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(commands().count());
    commands().for_each(|row| describe(row, reply));
    Ok(())
}

fn count(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.integer(commands().count() as i64);
    Ok(())
}

fn info(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    if call.count() == 2 {
        return all(call, reply);
    }
    reply.array(call.count() - 2);
    for name in call.arguments.iter_from(2) {
        match named(name) {
            Some(row) => describe(row, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// The ten elements of COMMAND INFO.
fn describe(row: &'static Command, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(row.full_name().as_bytes());
    reply.integer(row.arity.number());
    words(&flags(row), "", reply);
    let keys = row.keys;
    for number in [keys.first as i64, keys.last as i64, keys.step as i64] {
        reply.integer(number);
    }
    words(&categories(row), "@", reply);
    let tips = tips(row);
    reply.set(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    key_specification(row, reply);
    match subcommands(row).count() {
        // As Redis: a set when there are none.
        0 => reply.set(0),
        count => reply.array(count),
    }
    subcommands(row).for_each(|row| describe(row, reply));
}

fn words(words: &[&str], before: &str, reply: &mut Reply<'_>) {
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(&format!("{before}{word}")));
}

fn chosen<const N: usize>(all: [(bool, &'static str); N]) -> Vec<&'static str> {
    all.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect()
}

fn flags(row: &Command) -> Vec<&'static str> {
    let flags = row.flags;
    chosen([
        (flags.write, "write"),
        (flags.readonly, "readonly"),
        (flags.grows, "denyoom"),
        (flags.admin, "admin"),
        (row.keys.search != Search::None, "movablekeys"),
        ((flags.no_monitor || flags.skips_monitor) && !flags.admin, "skip_monitor"),
        (flags.no_slowlog, "skip_slowlog"),
        (is_of_pubsub(row), "pubsub"),
        (row.wait.is_some(), "blocking"),
        (flags.fast, "fast"),
        (flags.no_auth, "no_auth"),
        (flags.may_replicate, "may_replicate"),
        (flags.no_multi, "no_multi"),
        (flags.allows_busy, "allow_busy"),
    ])
}

fn is_of_pubsub(row: &Command) -> bool {
    row.group == Group::PubSub && !matches!(row.run, Run::Container) && row.name != "help"
}

/// Every category of ACLs, in Redis' order.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Commands that Redis puts into categories which do not follow from their rows: by name, a
/// container's with its subcommands.
const CATEGORIES_BY_NAME: &[(&str, &[&str])] = &[
    ("asking", &["connection"]),
    ("cluster|replicas", &["admin", "dangerous"]),
    ("cluster|slaves", &["admin", "dangerous"]),
    ("command", &["connection"]),
    ("debug", &["admin", "dangerous"]),
    ("info", &["dangerous"]),
    ("lastsave", &["admin", "dangerous"]),
    ("migrate", &["dangerous"]),
    ("readonly", &["connection"]),
    ("readwrite", &["connection"]),
    ("restore", &["dangerous"]),
    ("role", &["admin", "dangerous"]),
    ("sort", &["set", "sortedset", "list", "dangerous"]),
    ("sort_ro", &["set", "sortedset", "list", "dangerous"]),
    ("wait", &["blocking", "connection"]),
    ("waitaof", &["blocking", "connection"]),
];

/// Commands of their group that Redis does not count among those of the keyspace.
const NOT_OF_KEYSPACE: &[&str] = &["sort", "sort_ro", "wait", "waitaof"];

/// The categories of a command, in Redis' order.
pub fn categories(row: &Command) -> Vec<&'static str> {
    let flags = row.flags;
    let is_container = matches!(row.run, Run::Container);
    let of_group = |group| row.group == group && !is_container;
    let full_name = row.full_name();
    let of_name =
        CATEGORIES_BY_NAME.iter().filter(|(name, _)| *name == full_name || *name == row.parent);
    let by_name: Vec<&str> = of_name.flat_map(|(_, categories)| *categories).copied().collect();
    let everything = matches!(row.spread, Spread::Everywhere(gather)
        if flags.write || gather == Gather::SortedKeys);
    let of_all_keys = matches!(row.spread, Spread::Everywhere(_))
        && row.group == Group::Server
        && (flags.write || flags.readonly);
    let of_keyspace = of_group(Group::Generic) && !NOT_OF_KEYSPACE.contains(&row.name);
    let reads = flags.readonly && !of_group(Group::Scripting) && row.name != "help";
    let from_row = [
        (of_keyspace || of_all_keys, "keyspace"),
        (reads, "read"),
        (flags.write, "write"),
        (of_group(Group::Set), "set"),
        (of_group(Group::SortedSet), "sortedset"),
        (of_group(Group::List), "list"),
        (of_group(Group::Hash), "hash"),
        (of_group(Group::String), "string"),
        (of_group(Group::Bitmap), "bitmap"),
        (of_group(Group::HyperLogLog), "hyperloglog"),
        (of_group(Group::Stream), "stream"),
        (of_group(Group::Geo), "geo"),
        (flags.admin, "admin"),
        (is_of_pubsub(row), "pubsub"),
        (flags.fast, "fast"),
        (!flags.fast, "slow"),
        (row.wait.is_some(), "blocking"),
        (flags.admin || everything, "dangerous"),
        (of_group(Group::Connection), "connection"),
        (of_group(Group::Transactions), "transaction"),
        (of_group(Group::Scripting), "scripting"),
    ];
    chosen(from_row.map(|(follows, category)| (follows || by_name.contains(&category), category)))
}

fn tips(row: &Command) -> Vec<&'static str> {
    let spread = |wanted: Gather| matches!(row.spread, Spread::Split(gather) | Spread::Everywhere(gather) if gather == wanted);
    let everywhere = matches!(row.spread, Spread::Everywhere(_));
    chosen([
        (row.flags.random_reply, "nondeterministic_output"),
        (everywhere && row.name != "scan", "request_policy:all_shards"),
        (row.name == "scan", "request_policy:special"),
        (matches!(row.spread, Spread::Split(_)), "request_policy:multi_shard"),
        (spread(Gather::AllOk), "response_policy:all_succeeded"),
        (spread(Gather::Sum), "response_policy:agg_sum"),
    ])
}

/// What a command does with its keys.
fn key_flags(row: &Command) -> [&'static str; 2] {
    if row.flags.write { ["RW", "update"] } else { ["RO", "access"] }
}

fn key_specification(row: &Command, reply: &mut Reply<'_>) {
    let keys = row.keys;
    let found: &[KeyPlace] = match keys.search {
        Search::None => &[],
        Search::Counted(at) => &[KeyPlace { begin: Begin::At(at), find: Find::Counted }],
        Search::Streams => &[KeyPlace {
            begin: Begin::Behind("STREAMS", 1),
            find: Find::Range { last: -1, step: 1, limit: 2 },
        }],
        Search::SortStore => &[KeyPlace { begin: Begin::Unknown, find: Find::Unknown }],
        Search::RadiusStore => &[
            KeyPlace { begin: Begin::Behind("STORE", 6), find: Find::ONE },
            KeyPlace { begin: Begin::Behind("STOREDIST", 6), find: Find::ONE },
        ],
        Search::MigrateKeys => &[KeyPlace {
            begin: Begin::Behind("KEYS", -2),
            find: Find::Range { last: -1, step: 1, limit: 0 },
        }],
    };
    reply.set(usize::from(keys.first > 0) + found.len());
    if keys.first > 0 {
        // Counted from the first key; from the end when it is negative.
        let from_first = if keys.last < 0 { 0 } else { keys.first as i64 };
        let last = keys.last as i64 - from_first;
        let find = Find::Range { last, step: keys.step as i64, limit: 0 };
        KeyPlace { begin: Begin::At(keys.first), find }.describe(row, reply);
    }
    found.iter().for_each(|place| place.describe(row, reply));
}

/// One key specification of COMMAND INFO.
struct KeyPlace {
    begin: Begin,
    find: Find,
}

/// Where the search for keys begins.
enum Begin {
    At(usize),
    Behind(&'static str, i64),
    Unknown,
}

/// How keys are found from there.
enum Find {
    Range { last: i64, step: i64, limit: i64 },
    Counted,
    Unknown,
}

impl Find {
    const ONE: Find = Find::Range { last: 0, step: 1, limit: 0 };
}

impl KeyPlace {
    fn describe(&self, row: &Command, reply: &mut Reply<'_>) {
        reply.map(3);
        reply.bulk(b"flags");
        words(&key_flags(row), "", reply);
        reply.bulk(b"begin_search");
        match self.begin {
            Begin::At(index) => specification("index", &[("index", index as i64)], reply),
            Begin::Behind(word, from) => {
                specification_head("keyword", 2, reply);
                reply.bulk(b"keyword");
                reply.bulk(word.as_bytes());
                reply.bulk(b"startfrom");
                reply.integer(from);
            }
            Begin::Unknown => specification("unknown", &[], reply),
        }
        reply.bulk(b"find_keys");
        match self.find {
            Find::Range { last, step, limit } => {
                let fields = [("lastkey", last), ("keystep", step), ("limit", limit)];
                specification("range", &fields, reply);
            }
            Find::Counted => {
                let fields = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
                specification("keynum", &fields, reply);
            }
            Find::Unknown => specification("unknown", &[], reply),
        }
    }
}

fn specification_head(kind: &str, count: usize, reply: &mut Reply<'_>) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(count);
}

fn specification(kind: &str, fields: &[(&str, i64)], reply: &mut Reply<'_>) {
    specification_head(kind, fields.len(), reply);
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(*value);
    }
}

fn list(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let names = || {
        let all = commands().flat_map(|row| std::iter::once(row).chain(subcommands(row)));
        all.map(|row| (row, row.full_name()))
    };
    let is_filtered = call.count() > 2;
    if is_filtered && (call.count() != 5 || !call.arguments.is(2, "filterby")) {
        return Err(Refusal::Syntax);
    }
    let wanted = call.arguments.get(4).unwrap_or_default().to_ascii_lowercase();
    let found: Vec<_> = if !is_filtered {
        names().collect()
    } else if call.arguments.is(3, "module") {
        Vec::new()
    } else if call.arguments.is(3, "aclcat") {
        let of = |row: &Command| categories(row).iter().any(|word| word.as_bytes() == wanted);
        names().filter(|(row, _)| of(row)).collect()
    } else if call.arguments.is(3, "pattern") {
        let glob = Glob::new(&wanted);
        names().filter(|(_, name)| glob.matches(name.as_bytes())).collect()
    } else {
        return Err(Refusal::Syntax);
    };
    reply.array(found.len());
    found.iter().for_each(|(_, name)| reply.bulk(name.as_bytes()));
    Ok(())
}

fn getkeys(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (_, keys) = keys_of(call.arguments.tail(2))?;
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn getkeysandflags(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (row, keys) = keys_of(call.arguments.tail(2))?;
    reply.array(keys.len());
    for key in keys {
        reply.array(2);
        reply.bulk(key);
        words(&key_flags(row), "", reply);
    }
    Ok(())
}

/// The row of a whole command and its keys.
/// Errors: there is no such command, its count of arguments is wrong, or it has no keys.
fn keys_of(arguments: Arguments<'_>) -> Result<(&'static Command, Vec<&[u8]>), Refusal> {
    let row = table::resolve(arguments).filter(|row| !row.flags.internal);
    let row = row.ok_or(Refusal::text("ERR Invalid command specified"))?;
    if !row.keys.exist() {
        return Err(Refusal::text("ERR The command has no key arguments"));
    }
    if !row.arity.fits(arguments.count()) {
        return Err(Refusal::text("ERR Invalid number of arguments specified for command"));
    }
    let positions = row.keys.positions(arguments);
    Ok((row, positions.map(|at| arguments.at(at)).collect()))
}

fn docs(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let rows: Vec<&'static Command> = match call.count() {
        2 => commands().collect(),
        _ => call.arguments.iter_from(2).filter_map(named).collect(),
    };
    reply.map(rows.len());
    rows.into_iter().for_each(|row| document(row, reply));
    Ok(())
}

fn document(row: &'static Command, reply: &mut Reply<'_>) {
    let count = subcommands(row).count();
    reply.bulk(row.full_name().as_bytes());
    reply.map(if count > 0 { 4 } else { 3 });
    reply.bulk(b"summary");
    reply.bulk(row.summary.as_bytes());
    reply.bulk(b"since");
    reply.bulk(row.since.as_bytes());
    reply.bulk(b"group");
    reply.bulk(row.group.name().as_bytes());
    if count > 0 {
        reply.bulk(b"subcommands");
        reply.map(count);
        subcommands(row).for_each(|row| document(row, reply));
    }
}
