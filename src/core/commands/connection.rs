//! Commands of the connection itself: who speaks, in which protocol, in which database.

use super::{Answer, Arity, Call, Command, Group, Row, Secrets, plain, session};
use crate::acl::user::DEFAULT;
use crate::commands::database::database_argument;
use crate::core::SessionContext;
use crate::core::client::session::Session;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::{Protocol, Reply};
use ringraft_shards::arguments::Arguments;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    plain("ping", Arity::AtLeast(1), ping).fast().serves_listeners().about(
        Group::Connection,
        "1.0.0",
        "Answers PONG, or its argument.",
    ),
    plain("echo", Arity::Exactly(2), echo).fast().about(
        Group::Connection,
        "1.0.0",
        "Answers its argument.",
    ),
    session("quit", Arity::AtLeast(1), quit)
        .allows_busy()
        .fast()
        .no_auth()
        .unqueued()
        .serves_listeners()
        .about(Group::Connection, "1.0.0", "Closes the connection."),
    session("reset", Arity::Exactly(1), reset)
        .allows_busy()
        .fast()
        .no_auth()
        .unqueued()
        .serves_listeners()
        .about(Group::Connection, "6.2.0", "Makes the connection as new."),
    session("select", Arity::Exactly(2), select).fast().about(
        Group::Connection,
        "1.0.0",
        "Chooses the database.",
    ),
    session("auth", Arity::AtLeast(2), auth)
        .allows_busy()
        .fast()
        .no_auth()
        .secrets(Secrets::All)
        .about(
            Group::Connection,
            "1.0.0",
            "Logs in: with the password of the default user, or as another one.",
        ),
    session("hello", Arity::AtLeast(1), hello)
        .allows_busy()
        .fast()
        .no_auth()
        .secrets(Secrets::BehindAuth)
        .about(Group::Connection, "6.0.0", "Chooses the protocol, and may give password and name."),
];

fn ping(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    match call.count() {
        1 => reply.simple("PONG"),
        2 => reply.bulk(call.at(1)),
        _ => return Err(Refusal::Arity("ping".into())),
    }
    Ok(())
}

fn echo(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.bulk(call.at(1));
    Ok(())
}

fn quit(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.connection().close_after_replies = true;
    reply.ok();
    Ok(Answer::Now)
}

fn reset(
    context: &mut SessionContext<'_>,
    _call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.core.forget_watched(context.index);
    context.core.stop_monitoring(context.index);
    context.core.unsubscribe_all(context.index);
    context.core.stop_tracking(context.index);
    *context.session() = Session::new(context.core.users.default_user().clone());
    // Its own reply is sent even when CLIENT REPLY had turned replies off.
    context.unmute();
    reply.set_protocol(Protocol::Resp2);
    reply.simple("RESET");
    Ok(Answer::Now)
}

fn select(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.session().database = database_argument(call, 1)?;
    reply.ok();
    Ok(Answer::Now)
}

const WRONG_PASSWORD: Refusal =
    Refusal::text("WRONGPASS invalid username-password pair or user is disabled.");

fn auth(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    match call.count() {
        2 if context.core.users.default_user().needs_no_password => {
            return Err(Refusal::text(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ));
        }
        2 => log_in(context, call, DEFAULT, call.at(1))?,
        3 => log_in(context, call, call.at(1), call.at(2))?,
        _ => return Err(Refusal::Syntax),
    }
    reply.ok();
    Ok(Answer::Now)
}

/// The name and the password that a request logs in with.
pub fn credentials<'a>(
    command: &Command,
    arguments: Arguments<'a>,
) -> Option<(&'a [u8], &'a [u8])> {
    match (command.secrets, arguments.count()) {
        (Secrets::All, 2) => Some((DEFAULT, arguments.at(1))),
        (Secrets::All, 3) => Some((arguments.at(1), arguments.at(2))),
        (Secrets::BehindAuth, count) => {
            let option = (2..count).find(|&i| arguments.is(i, "auth"))?;
            Some((arguments.get(option + 1)?, arguments.get(option + 2)?))
        }
        _ => None,
    }
}

fn log_in(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    name: &[u8],
    password: &[u8],
) -> Outcome {
    let Some(user) = context.core.users.log_in(name, password).cloned() else {
        context.core.note_failed_login(context.index, call.at(0), name);
        return Err(WRONG_PASSWORD);
    };
    context.session().set_user(user);
    context.session().authenticated = true;
    Ok(())
}

fn hello(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mut protocol = context.session().protocol;
    if call.count() > 1 {
        let version = call
            .integer(1)
            .map_err(|_| Refusal::text("ERR Protocol version is not an integer or out of range"))?;
        protocol = match version {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(Refusal::text("NOPROTO unsupported protocol version")),
        };
    }
    let mut name = None;
    let mut i = 2;
    while i < call.count() {
        let left = call.count() - i - 1;
        if call.arguments.is(i, "auth") && left >= 2 {
            log_in(context, call, call.at(i + 1), call.at(i + 2))?;
            i += 3;
        } else if call.arguments.is(i, "setname") && left >= 1 {
            name = Some(call.at(i + 1));
            i += 2;
        } else {
            return Err(Refusal::repeating("ERR Syntax error in HELLO option '", call.at(i), "'"));
        }
    }
    if !context.session().authenticated {
        return Err(Refusal::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        context.session().names_mut().name = checked_name(name)?.to_vec();
    }
    context.session().protocol = protocol;
    context.session().note_subscriptions();
    reply.set_protocol(protocol);
    greet(context, reply);
    Ok(Answer::Now)
}

fn greet(context: &mut SessionContext<'_>, reply: &mut Reply<'_>) {
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(super::info::REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if reply.protocol() == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(context.connection().id as i64);
    reply.bulk(b"mode");
    reply.bulk(super::info::mode_word(context.core).as_bytes());
    reply.bulk(b"role");
    let leads = !context.core.shared.cluster.is_elsewhere();
    reply.bulk(if leads { b"master" } else { b"replica" });
    reply.bulk(b"modules");
    reply.array(0);
}

/// A name for a client: no spaces, no control characters.
/// Errors: Redis' text for one that has them.
pub fn checked_name(name: &[u8]) -> Result<&[u8], Refusal> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(name)
    } else {
        Err(Refusal::text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}
