//! The HELP of the containers of this folder.

use super::{Call, table};
use crate::commands::help::list;
use crate::refusal::Outcome;
use crate::resp::reply::Reply;

/// Lists the subcommands of the container that the called row belongs to.
pub fn help(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let parent = call.command.parent;
    let rows: Vec<_> = table::rows().iter().filter(|row| row.parent == parent).collect();
    list(parent, rows.into_iter(), reply);
    Ok(())
}
