//! CLIENT: the connections of the server, this one and all others.

use super::connection::checked_name;
use super::help::help;
use super::tracking::{caching, getredir, tracking, trackinginfo};
use super::{Answer, Arity, Call, Group, Row, RunSession, container, plain, session};
use crate::acl::users::Users;
use crate::core::client::clients::{ClientFilter, ClientType, client_line};
use crate::core::client::session::ReplyMode;
use crate::core::wait::waiting::End;
use crate::core::{Core, Pause, SessionContext};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("client", CLIENT).about(Group::Connection, "2.4.0", "The connections of clients.")];

const CLIENT: &[Row] = &[
    row("caching", Arity::Exactly(3), caching, "6.0.0", "Are the next keys tracked (YES|NO)?"),
    row("getredir", Arity::Exactly(2), getredir, "6.0.0", "Who is told of changes instead."),
    row("getname", Arity::Exactly(2), getname, "2.6.9", "Name of this connection."),
    plain("help", Arity::Exactly(2), help).of("client").about(
        Group::Connection,
        "5.0.0",
        "Lists the subcommands.",
    ),
    row("id", Arity::Exactly(2), id, "5.0.0", "Id of this connection."),
    row("info", Arity::Exactly(2), info, "6.2.0", "Describes this connection."),
    row("kill", Arity::AtLeast(3), kill, "2.4.0", "Closes the connections that filters name.")
        .admin()
        .asks(),
    row("list", Arity::AtLeast(2), list, "2.4.0", "Describes connections, by TYPE or ID.")
        .admin()
        .asks(),
    row("no-evict", Arity::Exactly(3), no_evict, "7.0.0", "Marks this connection (ON|OFF).")
        .admin(),
    row("no-touch", Arity::Exactly(3), no_touch, "7.2.0", "Reads count as no access (ON|OFF)."),
    row("pause", Arity::AtLeast(3), pause, "3.0.0", "Holds commands back (WRITE|ALL) for a time.")
        .admin()
        .asks(),
    row("reply", Arity::Exactly(3), reply_mode, "3.2.0", "Which replies are sent (ON|OFF|SKIP)."),
    row(
        "setinfo",
        Arity::Exactly(4),
        setinfo,
        "7.2.0",
        "Names the client's library (LIB-NAME|LIB-VER).",
    ),
    row(
        "tracking",
        Arity::AtLeast(3),
        tracking,
        "6.0.0",
        "Tells of changes of keys that were read.",
    )
    .asks(),
    row(
        "trackinginfo",
        Arity::Exactly(2),
        trackinginfo,
        "6.2.0",
        "How this connection tracks keys.",
    ),
    row("setname", Arity::Exactly(3), setname, "2.6.9", "Names this connection."),
    row("unblock", Arity::AtLeast(3), unblock, "5.0.0", "Ends a command that blocks a client.")
        .admin()
        .asks(),
    row("unpause", Arity::Exactly(2), unpause, "6.2.0", "Lets held commands go on.").admin().asks(),
];

const fn row(
    name: &'static str,
    arity: Arity,
    run: RunSession,
    since: &'static str,
    summary: &'static str,
) -> Row {
    session(name, arity, run).of("client").about(Group::Connection, since, summary)
}

fn getname(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    match context.session().names().name.as_slice() {
        [] => reply.null(),
        name => reply.bulk(name),
    }
    Ok(Answer::Now)
}

fn id(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.integer(context.connection().id as i64);
    Ok(Answer::Now)
}

fn info(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let steady_ms = context.core.steady_ms();
    reply.verbatim(&(client_line(context.connection(), steady_ms) + "\n"));
    Ok(Answer::Now)
}

fn kill(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let asker_id = context.connection().id;
    let by_address = call.count() == 3;
    let filter = if by_address {
        ClientFilter { address: Some(text(call.at(2))), ..ClientFilter::default() }
    } else {
        kill_filter(call, asker_id, &context.core.users)?
    };
    let ask = move |core: &mut Core| core.kill_clients(&filter, asker_id);
    context.ask_cores(ask, move |_, counts, reply| match counts.iter().sum::<usize>() {
        0 if by_address => reply.error("ERR No such client"),
        _ if by_address => reply.ok(),
        count => reply.integer(count as i64),
    })
}

fn kill_filter(call: &Call<'_>, asker_id: u64, users: &Users) -> Result<ClientFilter, Refusal> {
    let mut filter = ClientFilter { skipped_id: Some(asker_id), ..ClientFilter::default() };
    let mut i = 2;
    while i < call.count() {
        let Some(value) = call.arguments.get(i + 1) else { return Err(Refusal::Syntax) };
        let is = |word| call.arguments.is(i, word);
        if is("id") {
            let id = call.integer(i + 1).ok().and_then(|id| u64::try_from(id).ok());
            let id = id.filter(|&id| id > 0);
            let id = id.ok_or(Refusal::text("ERR client-id should be greater than 0"))?;
            filter.ids = Some(vec![id]);
        } else if is("type") {
            filter.client_type = Some(client_type(value)?);
        } else if is("addr") {
            filter.address = Some(text(value));
        } else if is("laddr") {
            filter.local_address = Some(text(value));
        } else if is("user") {
            if users.get(value).is_none() {
                return Err(Refusal::repeating("ERR No such user '", value, "'"));
            }
            filter.user = Some(value.to_vec());
        } else if is("skipme") {
            filter.skipped_id = match value.to_ascii_lowercase().as_slice() {
                b"yes" => Some(asker_id),
                b"no" => None,
                _ => return Err(Refusal::Syntax),
            };
        } else if is("maxage") {
            let age = call
                .integer(i + 1)
                .map_err(|_| Refusal::text("ERR maxage is not an integer or out of range"))?;
            if age <= 0 {
                return Err(Refusal::text("ERR maxage should be greater than 0"));
            }
            filter.age_seconds_min = Some(age);
        } else {
            return Err(Refusal::Syntax);
        }
        i += 2;
    }
    Ok(filter)
}

fn client_type(word: &[u8]) -> Result<ClientType, Refusal> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(ClientType::Normal),
        b"pubsub" => Ok(ClientType::PubSub),
        b"master" | b"slave" | b"replica" => Ok(ClientType::Other),
        _ => Err(Refusal::repeating("ERR Unknown client type '", word, "'")),
    }
}

fn list(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mut filter = ClientFilter::default();
    if call.count() == 4 && call.arguments.is(2, "type") {
        filter.client_type = Some(client_type(call.at(3))?);
    } else if call.count() > 3 && call.arguments.is(2, "id") {
        let ids = (3..call.count()).map(|i| call.integer(i).map(|id| id as u64)).collect();
        let ids: Result<Vec<u64>, Refusal> = ids;
        filter.ids = Some(ids.map_err(|_| Refusal::text("ERR Invalid client ID"))?);
    } else if call.count() > 2 {
        return Err(Refusal::Syntax);
    }
    let ask = move |core: &mut Core| core.client_lines(&filter);
    context.ask_cores(ask, |_, found, reply| {
        let mut lines: Vec<(u64, String)> = found.into_iter().flatten().collect();
        lines.sort_unstable_by_key(|(id, _)| *id);
        let all: String = lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
        reply.verbatim(&all);
    })
}

fn no_evict(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().no_evict = switch(call)?;
    reply.ok();
    Ok(Answer::Now)
}

fn no_touch(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().no_touch = switch(call)?;
    reply.ok();
    Ok(Answer::Now)
}

fn switch(call: &Call<'_>) -> Result<bool, Refusal> {
    match call.at(2).to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(Refusal::Syntax),
    }
}

fn pause(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let all = match call.count() {
        3 => true,
        4 if call.arguments.is(3, "all") => true,
        4 if call.arguments.is(3, "write") => false,
        4 => return Err(Refusal::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => {
            return Err(Refusal::text(
                "ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.",
            ));
        }
    };
    let timeout_ms = call
        .integer(2)
        .map_err(|_| Refusal::text("ERR timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(Refusal::text("ERR timeout is negative"));
    }
    // Redis adds it to the time of day, and so much fits.
    if context.core.now_ms().checked_add(timeout_ms).is_none() {
        return Err(Refusal::text("ERR timeout is out of range"));
    }
    let until_ms = context.core.steady_ms().saturating_add(timeout_ms);
    let pause = Pause { until_ms, all };
    context.ask_cores(move |core| core.begin_pause(pause), |_, _, reply| reply.ok())
}

fn reply_mode(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mode = context.session().reply_mode;
    context.session().reply_mode = match call.at(2).to_ascii_lowercase().as_slice() {
        b"on" => ReplyMode::On,
        b"off" => ReplyMode::Off,
        b"skip" if mode == ReplyMode::Off => mode,
        b"skip" => ReplyMode::SkipNext,
        _ => return Err(Refusal::Syntax),
    };
    if context.session().reply_mode == ReplyMode::On {
        context.unmute();
        reply.ok();
    } else {
        context.mute();
    }
    Ok(Answer::Now)
}

fn setinfo(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let (attribute, value) = (call.at(2), call.at(3));
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return Err(Refusal::repeating("ERR Unrecognized option '", attribute, "'"));
    }
    if checked_name(value).is_err() {
        let text = format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            text(attribute)
        );
        return Err(Refusal::Text(text.into()));
    }
    let names = context.session().names_mut();
    if is_name {
        names.library_name = value.to_vec();
    } else {
        names.library_version = value.to_vec();
    }
    reply.ok();
    Ok(Answer::Now)
}

fn setname(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().names_mut().name = checked_name(call.at(2))?.to_vec();
    reply.ok();
    Ok(Answer::Now)
}

fn unblock(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let end = match call.arguments.get(3) {
        None => End::Empty,
        Some(_) if call.arguments.is(3, "timeout") => End::Empty,
        Some(_) if call.arguments.is(3, "error") => End::Unblocked,
        Some(_) => {
            return Err(Refusal::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = call.integer(2)?;
    context.ask_cores(
        move |core| core.unblock_client(id, end.clone()),
        |_, unblocked, reply| reply.integer(unblocked.contains(&true).into()),
    )
}

fn unpause(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(Core::cancel_pause, |_, _, reply| reply.ok())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
