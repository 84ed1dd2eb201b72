//! The HELP of the containers of this folder.

use super::{Call, table};
use crate::commands::help::list;
use crate::refusal::Outcome;
use crate::resp::reply::Reply;

/// Lists the subcommands of the container that the called row belongs to.
pub fn help(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let parent = call.command.parent;
    list(parent, table::rows_under(parent), reply);
    Ok(())
}
