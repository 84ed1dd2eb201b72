//! Channels: SUBSCRIBE and its kin, PUBLISH, PUBSUB.

use super::help::help;
use super::{Answer, Arity, Call, Group, Keys, Row, RunSession, container, plain, session};
use crate::core::push::TopicKind;
use crate::core::{Core, SessionContext};
use crate::glob::Glob;
use crate::refusal::Refusal;
use crate::resp::reply::Reply;
use std::sync::Arc;

/// Rows of this file.
pub const COMMANDS: &[Row] = &[
    listen("subscribe", Arity::AtLeast(2), subscribe, "2.0.0", "Gets messages of channels."),
    listen("unsubscribe", Arity::AtLeast(1), unsubscribe, "2.0.0", "Gets them no longer."),
    listen(
        "psubscribe",
        Arity::AtLeast(2),
        psubscribe,
        "2.0.0",
        "Gets messages of channels that match patterns.",
    ),
    listen("punsubscribe", Arity::AtLeast(1), punsubscribe, "2.0.0", "Gets them no longer."),
    of_slot(
        listen(
            "ssubscribe",
            Arity::AtLeast(2),
            ssubscribe,
            "7.0.0",
            "Gets messages of shard channels.",
        ),
        Keys::ALL,
    ),
    listen("sunsubscribe", Arity::AtLeast(1), sunsubscribe, "7.0.0", "Gets them no longer."),
    session("publish", Arity::Exactly(3), publish).fast().may_replicate().sends().about(
        Group::PubSub,
        "2.0.0",
        "Sends a message to a channel.",
    ),
    of_slot(
        session("spublish", Arity::Exactly(3), spublish).fast().may_replicate().sends().about(
            Group::PubSub,
            "7.0.0",
            "Sends a message to a shard channel.",
        ),
        Keys::FIRST,
    ),
    container("pubsub", PUBSUB).about(Group::PubSub, "2.8.0", "Who has subscribed to what."),
];

const PUBSUB: &[Row] = &[
    ask("channels", Arity::AtLeast(2), channels, "2.8.0", "Channels with subscribers."),
    plain("help", Arity::Exactly(2), help).of("pubsub").about(
        Group::PubSub,
        "6.2.0",
        "Lists the subcommands.",
    ),
    ask("numpat", Arity::Exactly(2), numpat, "2.8.0", "Count of patterns with subscribers."),
    ask("numsub", Arity::AtLeast(2), numsub, "2.8.0", "Counts of subscribers of channels.").asks(),
    ask(
        "shardchannels",
        Arity::AtLeast(2),
        shardchannels,
        "7.0.0",
        "Shard channels with subscribers.",
    ),
    ask(
        "shardnumsub",
        Arity::AtLeast(2),
        shardnumsub,
        "7.0.0",
        "Counts of subscribers of shard channels.",
    )
    .asks(),
];

const fn listen(
    name: &'static str,
    arity: Arity,
    run: RunSession,
    since: &'static str,
    summary: &'static str,
) -> Row {
    session(name, arity, run).listens().about(Group::PubSub, since, summary)
}

/// Shard channels belong to slots, as keys do.
const fn of_slot(mut row: Row, keys: Keys) -> Row {
    row.keys = keys;
    row
}

const fn ask(
    name: &'static str,
    arity: Arity,
    run: RunSession,
    since: &'static str,
    summary: &'static str,
) -> Row {
    session(name, arity, run).of("pubsub").about(Group::PubSub, since, summary)
}

fn names(call: &Call<'_>, from: usize) -> Vec<Arc<[u8]>> {
    call.arguments.iter_from(from).map(Arc::from).collect()
}

fn subscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.subscribe(TopicKind::Channel, names(call, 1), reply)
}

fn psubscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.subscribe(TopicKind::Pattern, names(call, 1), reply)
}

fn ssubscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.subscribe(TopicKind::ShardChannel, names(call, 1), reply)
}

fn end(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    kind: TopicKind,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    context.unsubscribe(kind, (call.count() > 1).then(|| names(call, 1)), reply);
    Ok(Answer::Now)
}

fn unsubscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    end(context, call, TopicKind::Channel, reply)
}

fn punsubscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    end(context, call, TopicKind::Pattern, reply)
}

fn sunsubscribe(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    end(context, call, TopicKind::ShardChannel, reply)
}

fn send(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    kind: TopicKind,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    match context.core.publish(context.target, kind, call.at(1), call.at(2)) {
        Some(count) => {
            reply.integer(count);
            Ok(Answer::Now)
        }
        None => Ok(Answer::Later),
    }
}

fn publish(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    send(context, call, TopicKind::Channel, reply)
}

fn spublish(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    send(context, call, TopicKind::ShardChannel, reply)
}

fn list(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    kind: TopicKind,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    if call.count() > 3 {
        return Err(Refusal::repeating(
            "ERR unknown subcommand or wrong number of arguments for '",
            call.at(1),
            "'. Try PUBSUB HELP.",
        ));
    }
    let glob = call.arguments.get(2).map(Glob::new);
    let names = context.core.push.topics(kind).keys();
    let names: Vec<_> =
        names.filter(|name| glob.as_ref().is_none_or(|glob| glob.matches(name))).collect();
    reply.array(names.len());
    names.into_iter().for_each(|name| reply.bulk(name));
    Ok(Answer::Now)
}

fn channels(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    list(context, call, TopicKind::Channel, reply)
}

fn shardchannels(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    list(context, call, TopicKind::ShardChannel, reply)
}

fn numpat(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.integer(context.core.push.count(TopicKind::Pattern) as i64);
    Ok(Answer::Now)
}

fn count(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    kind: TopicKind,
) -> Result<Answer, Refusal> {
    let names = names(call, 2);
    let wanted = names.clone();
    let ask = move |core: &mut Core| -> Vec<usize> {
        wanted.iter().map(|name| core.push.subscribers(kind, name)).collect()
    };
    context.ask_cores(ask, move |_, counts, reply| {
        reply.array(2 * names.len());
        for (i, name) in names.iter().enumerate() {
            reply.bulk(name);
            reply.integer(counts.iter().map(|counts| counts[i] as i64).sum());
        }
    })
}

fn numsub(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    count(context, call, TopicKind::Channel)
}

fn shardnumsub(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    _: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    count(context, call, TopicKind::ShardChannel)
}
