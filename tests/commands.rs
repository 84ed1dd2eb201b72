//! `docs/commands.md` is made from the rows of the command table.

use ringraft::commands::{Arity, Command, Run};
use ringraft::core::commands::table;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const HEAD: &str = "# Commands

Every command, by group, made from the rows of the command table (`UPDATE=1 cargo test -p ringraft --test commands` writes this page).

- *Arguments*: how many words a request has, the command's own included; `+` for that many or more.
- *Since*: the version of Redis that introduced it, for those of Redis.
- *Flags*: `read` and `write` say what it does with keys; `grows`: refused when memory is full and nothing can be evicted; `fast`:
  constant or logarithmic time; `waits`: until there is something, or its time is over; `admin`: for operators; `no-auth`: before a
  password too; `no-multi`: not in a transaction.

What differs from Redis is in [compatibility.md](compatibility.md).
";

fn flags(row: &Command) -> String {
    let flags = row.flags;
    let named = [
        (flags.readonly, "read"),
        (flags.write, "write"),
        (flags.grows, "grows"),
        (flags.fast, "fast"),
        (row.wait.is_some(), "waits"),
        (flags.admin, "admin"),
        (flags.no_auth, "no-auth"),
        (flags.no_multi, "no-multi"),
    ];
    let named: Vec<&str> = named.iter().filter(|flag| flag.0).map(|flag| flag.1).collect();
    named.join(", ")
}

fn arity(row: &Command) -> String {
    match row.arity {
        Arity::Exactly(count) => count.to_string(),
        Arity::AtLeast(count) => format!("{count}+"),
        Arity::Pairs => "3+".to_owned(),
    }
}

fn page() -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    // A container that does nothing alone is its subcommands.
    let shown = table::rows().iter().filter(|row| {
        !row.flags.internal && (!matches!(row.run, Run::Container) || row.alone.is_some())
    });
    for row in shown {
        let summary = row.summary.replace('|', "\\|");
        let name = row.full_name().replace('|', " ").to_uppercase();
        let (arity, flags) = (arity(row), flags(row));
        let line = format!("| {name} | {arity} | {} | {flags} | {summary} |", row.since);
        groups.entry(row.group.name()).or_default().push(line);
    }
    let mut page = HEAD.to_owned();
    for (group, mut lines) in groups {
        lines.sort_unstable();
        page +=
            &format!("\n## {group}\n\n| command | arguments | since | flags | what it does |\n");
        page += "|---|---|---|---|---|\n";
        lines.iter().for_each(|line| page += &format!("{line}\n"));
    }
    page
}

#[test]
fn the_commands_page_lists_every_command() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(&path, page()).expect("writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/commands.md is stale: run it again with UPDATE=1");
}
