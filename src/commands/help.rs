//! The HELP of every container, written from the rows of its subcommands.

use super::refusal::Outcome;
use super::{Call, Command, families};
use crate::resp::reply::Reply;

/// Lists the subcommands of the container that the called row belongs to. Panics when it is of no
/// family of values.
pub fn help(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let container = families::find(call.command.parent).expect("a subcommand has a parent");
    list(container.name, container.subcommands.iter(), reply);
    Ok(())
}

/// Lists these subcommands of a container.
pub fn list<'a>(
    container: &str,
    rows: impl Iterator<Item = &'a Command> + Clone,
    reply: &mut Reply<'_>,
) {
    reply.array(1 + 2 * rows.clone().count());
    let title = container.to_ascii_uppercase();
    reply.simple(&format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in rows {
        reply.simple(&row.name.to_ascii_uppercase());
        reply.simple(&format!("    {}", row.summary));
    }
}
