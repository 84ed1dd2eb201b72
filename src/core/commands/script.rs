//! EVAL and its kin, and SCRIPT.

use super::help::help;
use super::{Answer, Arity, Call, Group, Row, ScriptBy, container, plain, script_row, session};
use crate::core::SessionContext;
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use crate::script::library::{Killed, Kind};
use crate::script::sha1;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    script_row("eval", ScriptBy::Text).may_replicate().unshown().about(
        Group::Scripting,
        "2.6.0",
        "Runs a script in Lua.",
    ),
    script_row("evalsha", ScriptBy::Digest).may_replicate().unshown().about(
        Group::Scripting,
        "2.6.0",
        "Runs a script that is known, by its SHA1 digest.",
    ),
    reads(script_row("eval_ro", ScriptBy::Text)).unshown().about(
        Group::Scripting,
        "7.0.0",
        "Runs a script in Lua that does not write.",
    ),
    reads(script_row("evalsha_ro", ScriptBy::Digest)).unshown().about(
        Group::Scripting,
        "7.0.0",
        "Runs a script that is known and does not write.",
    ),
    container("script", SCRIPT).about(Group::Scripting, "2.6.0", "The scripts that are known."),
];

const SCRIPT: &[Row] = &[
    session("debug", Arity::Exactly(3), debug).of("script").about(
        Group::Scripting,
        "3.2.0",
        "Refused: there is no debugger.",
    ),
    session("exists", Arity::AtLeast(3), exists).of("script").for_leader().about(
        Group::Scripting,
        "2.6.0",
        "Says for each digest whether its script is known.",
    ),
    session("flush", Arity::AtLeast(2), flush).of("script").for_leader().about(
        Group::Scripting,
        "2.6.0",
        "Forgets all scripts.",
    ),
    session("kill", Arity::Exactly(2), kill).allows_busy().of("script").about(
        Group::Scripting,
        "2.6.0",
        "Ends the scripts that run; nothing of them is done.",
    ),
    session("load", Arity::Exactly(3), load).of("script").for_leader().about(
        Group::Scripting,
        "2.6.0",
        "Makes a script known and answers its digest.",
    ),
    plain("help", Arity::Exactly(2), help).of("script").about(
        Group::Scripting,
        "5.0.0",
        "Lists the subcommands.",
    ),
];

/// A script that only reads.
pub const fn reads(mut row: Row) -> Row {
    row.flags.readonly = true;
    row
}

/// Clients go on with the script whatever they are answered (redis-cli --ldb): it must not run
/// then, where a session of the debugger would have left the data as it was.
fn debug(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if call.arguments.is(2, "no") {
        context.session().wants_debugger = false;
        reply.ok();
        return Ok(Answer::Now);
    }
    if !["yes", "sync"].iter().any(|word| call.arguments.is(2, word)) {
        return Err(Refusal::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"));
    }
    context.session().wants_debugger = true;
    Err(Refusal::text("ERR SCRIPT DEBUG is not supported: there is no debugger"))
}

fn exists(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.array(call.count() - 2);
    for digits in call.arguments.iter_from(2) {
        let digest = sha1::parse(digits);
        let known = digest.and_then(|digest| context.core.shared.scripts.text(&digest)).is_some();
        reply.integer(known.into());
    }
    Ok(Answer::Now)
}

fn flush(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mode = |word| call.count() == 3 && call.arguments.is(2, word);
    if call.count() != 2 && !mode("sync") && !mode("async") {
        return Err(Refusal::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    context.core.shared.scripts.flush();
    reply.ok();
    Ok(Answer::Now)
}

fn kill(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    kill_running(context, Kind::Script, reply)
}

/// Ends what runs of a kind. Errors: there is nothing, or what runs is of the other kind.
pub fn kill_running(
    context: &mut SessionContext<'_>,
    kind: Kind,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    match (context.core.shared.scripts.kill(kind), kind) {
        (Killed::Nothing, _) => Err(Refusal::text("NOTBUSY No scripts in execution right now.")),
        (Killed::Other, Kind::Script) => Err(Refusal::text(
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
        )),
        (Killed::Other, Kind::Function) => Err(Refusal::text(
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        )),
        (Killed::Some, _) => {
            reply.ok();
            Ok(Answer::Now)
        }
    }
}

fn load(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.core.interpreter()?.script(call.at(2))?;
    reply.bulk(sha1::hexadecimal(&sha1::digest(call.at(2))).as_bytes());
    Ok(Answer::Now)
}
