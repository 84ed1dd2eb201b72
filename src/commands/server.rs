//! Commands about the server as a whole: its clock, its role, its end, and all that it is asked.

use super::refusal::{Outcome, Refusal};
use super::{Answer, Arity, Call, Command, Group, plain, session};
use crate::core::{Core, SessionContext, busy};
use crate::resp::reply::Reply;
use crate::settings::values::Mode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of this file.
pub const COMMANDS: &[Command] = &[
    plain("time", Arity::Exactly(1), time).fast().random_reply().about(
        Group::Server,
        "2.6.0",
        "Seconds since 1970, and microseconds of the current one.",
    ),
    session("role", Arity::Exactly(1), role).fast().about(
        Group::Server,
        "2.8.12",
        "What this server is in its cluster.",
    ),
    session("monitor", Arity::Exactly(1), monitor).admin().takes_over().about(
        Group::Server,
        "1.0.0",
        "Shows every request of all clients from now on.",
    ),
    session("shutdown", Arity::AtLeast(1), shutdown).allows_busy().admin().no_multi().about(
        Group::Server,
        "1.0.0",
        "Ends the server in order.",
    ),
];

fn time(_: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk_integer(now.as_secs() as i64);
    reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(())
}

fn role(
    _: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
    Ok(Answer::Now)
}

fn monitor(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.core.start_monitoring(context.index);
    reply.ok();
    Ok(Answer::Now)
}

/// Every acknowledged write is on disk whichever way the server ends, so that SAVE, NOSAVE, NOW and FORCE
/// change nothing in `store` mode. There is no reply: the connection ends with the server.
fn shutdown(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let said = |word: &str| (1..call.count()).any(|i| call.arguments.is(i, word));
    let known = ["nosave", "save", "now", "force", "abort"];
    let all_known = (1..call.count()).all(|i| known.iter().any(|word| call.arguments.is(i, word)));
    let abort = said("abort");
    if !all_known || abort && call.count() > 2 || said("save") && said("nosave") {
        return Err(Refusal::Syntax);
    }
    if abort {
        return Err(Refusal::text("ERR No shutdown in progress."));
    }
    if said("save") && !said("force") && context.core.settings.mode == Mode::Cache {
        return Err(Refusal::text("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    if !said("nosave") && context.core.shared.scripts.is_busy() {
        return Err(busy(&context.core.shared.scripts));
    }
    tracing::info!("SHUTDOWN: stopping");
    context.core.everywhere(Core::stop);
    // Answered with nothing, and nothing behind it is run.
    context.connection().close_after_replies = true;
    Ok(Answer::Now)
}
