//! CONFIG: the settings of the server while it runs.

use super::help::help;
use super::{Answer, Arity, Call, Group, Keys, Row, Secrets, container, plain, session, write};
use crate::acl::users::Users;
use crate::core::{Core, SessionContext};
use crate::node;
use crate::refusal::{Outcome, Refusal};
use crate::resp::reply::Reply;
use crate::settings::{SettingError, file};
use ringraft_shards::keyspace::Edit;
use ringraft_shards::value::Limits;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    container("config", CONFIG).about(Group::Server, "2.0.0", "The settings of the server."),
    write(SET_LIMITS, Arity::Exactly(2), Keys::NONE, set_limits).internal().about(
        Group::Server,
        "7.2.0",
        "Sets the sizes at which the collections of a shard change their form.",
    ),
];

/// The leader's operation that sets [`Limits`]: they decide the order of elements, so all replicas
/// must change them at one place of the log.
pub const SET_LIMITS: &str = "set-limits";

const CONFIG: &[Row] = &[
    session("get", Arity::AtLeast(3), get).of("config").admin().about(
        Group::Server,
        "2.0.0",
        "The settings whose names match one of the patterns.",
    ),
    plain("help", Arity::Exactly(2), help).of("config").about(
        Group::Server,
        "5.0.0",
        "Lists the subcommands.",
    ),
    session("resetstat", Arity::Exactly(2), resetstat).of("config").admin().asks().about(
        Group::Server,
        "2.0.0",
        "Counts from zero again what INFO shows.",
    ),
    session("rewrite", Arity::Exactly(2), rewrite).of("config").admin().about(
        Group::Server,
        "2.8.0",
        "Writes the settings into the file they came from.",
    ),
    session("set", Arity::AtLeast(4), set)
        .of("config")
        .admin()
        .asks()
        .secrets(Secrets::Settings)
        .about(Group::Server, "2.0.0", "Changes settings: pairs of name and value."),
];

fn get(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let patterns: Vec<&[u8]> = call.arguments.iter_from(2).collect();
    let found = context.core.settings.get(&patterns);
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(Answer::Now)
}

fn resetstat(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.ask_cores(Core::reset_stats, |_, _, reply| reply.ok())
}

fn rewrite(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let mut settings = context.core.settings.clone();
    if settings.aclfile.as_os_str().is_empty() {
        let users = context.core.users.configured(&settings.requirepass);
        settings.users = users.ok_or(Refusal::text(
            "ERR Rewriting config file: a user has no name, or a name or rule that is not UTF-8; an ACL file can hold it (aclfile)",
        ))?;
    }
    match file::rewrite(&settings) {
        Ok(()) => {
            reply.ok();
            Ok(Answer::Now)
        }
        Err(error) => Err(Refusal::Text(error.to_string().into())),
    }
}

/// Checked here, then done on every core.
fn set(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if call.count() % 2 == 1 {
        return Err(Refusal::Syntax);
    }
    let words: Vec<&[u8]> = call.arguments.iter_from(2).collect();
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let old = &context.core.settings;
    let mut new = old.clone();
    new.set(&pairs).and_then(|()| node::apply(old, &new))?;
    if pairs.iter().any(|(name, _)| is_about_tls(name))
        && let Some(front) = &context.core.shared.tls
    {
        // Also when they are the same files: what is in them may not be.
        front.change(&new.tls).map_err(|(name, cause)| SettingError::Value(name, cause))?;
    }
    let password = pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"requirepass"));
    if password.is_some() {
        let set = |users: &mut Users| -> Outcome {
            users.set_default_password(&new.requirepass);
            Ok(())
        };
        let asker_id = context.connection().id;
        context.core.shared.users.change(asker_id, set)?;
    }
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        pairs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let adopt = move |core: &mut Core| {
        core.change_settings(&pairs);
        core.adopt_users();
    };
    context.ask_cores(adopt, |_, _, reply| reply.ok())
}

fn is_about_tls(name: &[u8]) -> bool {
    name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"tls-"))
}

fn set_limits(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    edit.set_limits(Limits::decode(call.at(1)).expect("the leader encoded them"));
    reply.ok();
    Ok(())
}
