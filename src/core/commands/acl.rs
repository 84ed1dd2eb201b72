//! ACL: the users of the server.

use super::command::{CATEGORIES, categories};
use super::help::help;
use super::{
    Answer, Arity, Call, Group, Row, RunSession, Secrets, container, plain, session, table,
};
use crate::acl::log::Entry;
use crate::acl::selector::Selector;
use crate::acl::user::{DEFAULT, Denial, Shows, User};
use crate::acl::users::Users;
use crate::core::{Core, SessionContext};
use crate::limits::{ACL_LOG_SHOWN_DEFAULT, ACL_PASSWORD_BITS_MAX};
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;

/// Rows of this file.
pub const COMMANDS: &[Row] =
    &[container("acl", ACL).about(Group::Server, "6.0.0", "Users and what they may do.")];

const ACL: &[Row] = &[
    plain("cat", Arity::AtLeast(2), cat).of("acl").about(
        Group::Server,
        "6.0.0",
        "Categories, or the commands of one.",
    ),
    row(
        "deluser",
        Arity::AtLeast(3),
        deluser,
        "6.0.0",
        "Removes users and closes their connections.",
    )
    .admin()
    .asks()
    .secrets(Secrets::FromSecond),
    row("dryrun", Arity::AtLeast(4), dryrun, "7.0.0", "May a user run a command?")
        .admin()
        .secrets(Secrets::FromSecond),
    plain("genpass", Arity::AtLeast(2), genpass).of("acl").about(
        Group::Server,
        "6.0.0",
        "A password by chance, of so many bits.",
    ),
    row("getuser", Arity::Exactly(3), getuser, "6.0.0", "What a user may do.")
        .admin()
        .secrets(Secrets::FromSecond),
    plain("help", Arity::Exactly(2), help).of("acl").about(
        Group::Server,
        "6.0.0",
        "Lists the subcommands.",
    ),
    row("list", Arity::Exactly(2), list, "6.0.0", "All users, as rules.").admin(),
    row("load", Arity::Exactly(2), load, "6.0.0", "Takes the users of the ACL file.")
        .admin()
        .asks(),
    row("log", Arity::AtLeast(2), log, "6.0.0", "What was denied lately (count | RESET).").admin(),
    row("save", Arity::Exactly(2), save, "6.0.0", "Writes the users into the ACL file.").admin(),
    row("setuser", Arity::AtLeast(3), setuser, "6.0.0", "Makes or changes a user by rules.")
        .admin()
        .asks()
        .secrets(Secrets::FromSecond),
    row("users", Arity::Exactly(2), users, "6.0.0", "Names of all users.").admin(),
    row("whoami", Arity::Exactly(2), whoami, "6.0.0", "The user of this connection."),
];

const fn row(
    name: &'static str,
    arity: Arity,
    run: RunSession,
    since: &'static str,
    summary: &'static str,
) -> Row {
    session(name, arity, run).of("acl").about(Group::Server, since, summary)
}

fn too_many(word: &[u8]) -> Refusal {
    let text = "ERR unknown subcommand or wrong number of arguments for '";
    Refusal::repeating(text, word, "'. Try ACL HELP.")
}

fn cat(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let wanted = match call.count() {
        2 => {
            reply.array(CATEGORIES.len());
            CATEGORIES.iter().for_each(|name| reply.bulk(name.as_bytes()));
            return Ok(());
        }
        3 => call.at(2),
        _ => return Err(too_many(call.at(1))),
    };
    let is_it = |name: &&&str| name.as_bytes().eq_ignore_ascii_case(wanted);
    let category = CATEGORIES.iter().find(is_it).ok_or_else(|| {
        Refusal::repeating("ERR Unknown category '", &wanted[..wanted.len().min(128)], "'")
    })?;
    let rows = table::rows().iter().filter(|row| !row.flags.internal);
    let found: Vec<_> = rows.filter(|row| categories(row).contains(category)).collect();
    reply.array(found.len());
    found.iter().for_each(|row| reply.bulk(row.full_name().as_bytes()));
    Ok(())
}

fn genpass(call: &Call<'_>, reply: &mut Reply<'_>) -> Outcome {
    let bits = match call.count() {
        2 => 256,
        3 => call.integer(2)?,
        _ => return Err(too_many(call.at(1))),
    };
    let bits = usize::try_from(bits).ok().filter(|bits| (1..=ACL_PASSWORD_BITS_MAX).contains(bits));
    let bits = bits.ok_or_else(|| {
        let text = format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {ACL_PASSWORD_BITS_MAX}"
        );
        Refusal::Text(text.into())
    })?;
    let mut bytes = [0; ACL_PASSWORD_BITS_MAX / 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refusal::Text(format!("ERR no random bits: {error}").into()))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    reply.bulk(&digits.as_bytes()[..bits.div_ceil(4)]);
    Ok(())
}

/// Changes the users; the reply comes when every core has them.
fn change(
    context: &mut SessionContext<'_>,
    change: impl FnOnce(&mut Users) -> Result<i64, Refusal>,
    conclude: fn(i64, &mut Reply<'_>),
) -> Result<Answer, Refusal> {
    let asker_id = context.connection().id;
    let done = context.core.shared.users.change(asker_id, change)?;
    context.ask_cores(Core::adopt_users, move |_, _, reply| conclude(done, reply))
}

fn setuser(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let rules: Vec<&[u8]> = call.arguments.iter_from(3).collect();
    let all_channels = context.core.settings.acl_pubsub_default.is_all();
    let set = |users: &mut Users| users.set(call.at(2), &rules, all_channels).map(|()| 0);
    change(context, set, |_, reply| reply.ok())
}

fn deluser(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if call.arguments.iter_from(2).any(|name| name == DEFAULT) {
        return Err(Refusal::text("ERR The 'default' user cannot be removed"));
    }
    let remove = |users: &mut Users| {
        Ok(call.arguments.iter_from(2).filter(|name| users.remove(name)).count() as i64)
    };
    change(context, remove, |count, reply| reply.integer(count))
}

/// Errors: there is no ACL file.
fn file(context: &SessionContext<'_>) -> Result<std::path::PathBuf, Refusal> {
    let path = context.core.settings.aclfile.clone();
    Some(path).filter(|path| !path.as_os_str().is_empty()).ok_or(Refusal::text(
        "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
         command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
         users in the Redis configuration.",
    ))
}

fn load(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let path = file(context)?;
    let all_channels = context.core.settings.acl_pubsub_default.is_all();
    let read = |users: &mut Users| {
        *users = users
            .read_file(&path, all_channels)
            .map_err(|text| Refusal::Bytes(format!("ERR {text}").into_bytes()))?;
        Ok(0)
    };
    change(context, read, |_, reply| reply.ok())
}

fn save(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let path = file(context)?;
    let lines: Vec<Vec<u8>> = context.core.users.lines().collect();
    let text: Vec<u8> =
        lines.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
    if let Err(error) = crate::files::replace(&path, &text) {
        tracing::warn!(%error, file = %path.display(), "the users cannot be saved");
        return Err(Refusal::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    reply.ok();
    Ok(Answer::Now)
}

fn list(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let users = &context.core.users;
    reply.array(users.iter().len());
    users.lines().for_each(|line| reply.bulk(&line));
    Ok(Answer::Now)
}

fn users(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let users = &context.core.users;
    reply.array(users.iter().len());
    users.iter().for_each(|user| reply.bulk(&user.name));
    Ok(Answer::Now)
}

fn whoami(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.bulk(&context.session().user.name);
    Ok(Answer::Now)
}

fn getuser(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let Some(user) = context.core.users.get(call.at(2)) else {
        reply.null();
        return Ok(Answer::Now);
    };
    reply.map(6);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(user.passwords.len());
    user.passwords.iter().for_each(|password| reply.bulk(password.digits().as_bytes()));
    describe(&user.root, reply);
    reply.bulk(b"selectors");
    reply.array(user.others.len());
    for other in &user.others {
        reply.map(3);
        describe(other, reply);
    }
    Ok(Answer::Now)
}

fn describe(selector: &Selector, reply: &mut Reply<'_>) {
    reply.bulk(b"commands");
    reply.bulk(&selector.describe_commands());
    reply.bulk(b"keys");
    reply.bulk(&selector.describe_keys());
    reply.bulk(b"channels");
    reply.bulk(&selector.describe_channels());
}

fn dryrun(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let user = context.core.users.get(call.at(2));
    let user: &User =
        user.ok_or_else(|| Refusal::repeating("ERR User '", call.at(2), "' not found"))?;
    let request = call.arguments.tail(3);
    let command = table::resolve(request).filter(|row| !row.flags.internal);
    let command =
        command.ok_or_else(|| Refusal::repeating("ERR Command '", call.at(3), "' not found"))?;
    command.check_arity(request.count())?;
    match user.check(command, request) {
        // As in Redis it is not looked at what the options of SORT need.
        Ok(()) | Err(Denial::Option(_)) => reply.ok(),
        Err(denial) => {
            reply.bulk(&user.refusal(denial, command, request, Shows::Object).line());
        }
    }
    Ok(Answer::Now)
}

fn log(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if call.count() > 3 {
        return Err(too_many(call.at(1)));
    }
    if call.count() == 3 && call.arguments.is(2, "reset") {
        context.core.with_acl_log(|log| log.trim(0));
        reply.ok();
        return Ok(Answer::Now);
    }
    let count = if call.count() == 3 { call.integer(2)? } else { ACL_LOG_SHOWN_DEFAULT };
    let count = usize::try_from(count).unwrap_or(0);
    let entries = context.core.with_acl_log(|log| log.newest(count));
    reply.array(entries.len());
    let now_ms = context.core.now_ms();
    entries.iter().for_each(|entry| show(entry, now_ms, reply));
    Ok(Answer::Now)
}

fn show(entry: &Entry, now_ms: i64, reply: &mut Reply<'_>) {
    let event = &entry.event;
    reply.map(10);
    reply.bulk(b"count");
    reply.integer(entry.count as i64);
    reply.bulk(b"reason");
    reply.bulk(event.reason.word().as_bytes());
    reply.bulk(b"context");
    reply.bulk(event.place.word().as_bytes());
    reply.bulk(b"object");
    reply.bulk(&event.object);
    reply.bulk(b"username");
    reply.bulk(&event.user);
    reply.bulk(b"age-seconds");
    reply.double((now_ms - entry.updated_ms) as f64 / 1000.0);
    reply.bulk(b"client-info");
    reply.bulk(event.client.as_bytes());
    reply.bulk(b"entry-id");
    reply.integer(entry.id as i64);
    reply.bulk(b"timestamp-created");
    reply.integer(entry.created_ms);
    reply.bulk(b"timestamp-last-updated");
    reply.integer(entry.updated_ms);
}
