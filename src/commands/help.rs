//! The HELP of every container, written from the rows of its subcommands.

use super::refusal::Outcome;
use super::{Call, Run, table};
use crate::resp::reply::Reply;

/// Lists the subcommands of the container that the called row belongs to.
pub fn help(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let parent = call.command.parent;
    let container = table::find(parent.as_bytes()).expect("a subcommand has a parent");
    let Run::Container(rows) = container.run else { unreachable!("a parent is a container") };
    reply.array(1 + 2 * rows.len());
    let title = parent.to_ascii_uppercase();
    reply.simple(&format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for row in rows {
        reply.simple(&row.name.to_ascii_uppercase());
        reply.simple(&format!("    {}", row.summary));
    }
    Ok(())
}
