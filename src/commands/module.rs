//! MODULE: there are none, and none can be loaded.

use super::help::help;
use super::refusal::{Outcome, Refusal};
use super::{Arity, Call, Command, Group, container, plain};
use crate::resp::reply::Reply;

/// Rows of this file.
pub const COMMANDS: &[Command] =
    &[container("module", MODULE).about(Group::Server, "4.0.0", "Modules: there are none.")];

const MODULE: &[Command] = &[
    plain("help", Arity::Exactly(2), help).of("module").about(
        Group::Server,
        "5.0.0",
        "Lists the subcommands.",
    ),
    row("list", Arity::Exactly(2), list, "4.0.0", "The loaded modules: none."),
    row("load", Arity::AtLeast(3), load, "4.0.0", "Is refused: modules cannot be loaded."),
    row("loadex", Arity::AtLeast(3), load, "7.0.0", "Is refused: modules cannot be loaded."),
    row("unload", Arity::Exactly(3), unload, "4.0.0", "Is refused: no module has that name."),
];

const fn row(
    name: &'static str,
    arity: Arity,
    run: fn(&Call<'_>, &mut Reply<'_>) -> Outcome,
    since: &'static str,
    summary: &'static str,
) -> Command {
    plain(name, arity, run).of("module").admin().about(Group::Server, since, summary)
}

fn list(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.array(0);
    Ok(())
}

fn load(_: &Call<'_>, _: &mut Reply<'_>) -> Outcome {
    Err(Refusal::text("ERR Error loading the extension: ringraft has no modules"))
}

fn unload(_: &Call<'_>, _: &mut Reply<'_>) -> Outcome {
    Err(Refusal::text("ERR Error unloading module: no such module with that name"))
}
