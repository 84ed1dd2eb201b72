//! CLIENT TRACKING and its companions: news of keys for client-side caches.

use super::{Answer, Call};
use crate::core::push::{Tracking, TrackingMode, check_prefixes};
use crate::core::{Core, SessionContext};
use crate::refusal::Refusal;
use crate::resp::reply::Reply;

const OTHER_BROADCAST: Refusal = Refusal::text(
    "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a \
     different mode.",
);
const OTHER_MODE: Refusal = Refusal::text(
    "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a \
     different mode.",
);
const NO_SUCH_CLIENT: Refusal =
    Refusal::text("ERR The client ID you want redirect to does not exist");

/// CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]
pub fn tracking(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let wanted = Wanted::of(call)?;
    if call.arguments.is(2, "off") {
        context.core.stop_tracking(context.index);
        reply.ok();
        return Ok(Answer::Now);
    }
    if !call.arguments.is(2, "on") {
        return Err(Refusal::Syntax);
    }
    let tracking = wanted.checked(context.session().tracking.as_deref())?;
    let index = context.index;
    let redirect = tracking.redirect;
    // First who is to be told instead must be there, and all cores must know that somebody tracks.
    let from = context.core.id;
    let count = context.core.tracker_count() + 1;
    context.ask_cores(
        move |core| {
            core.note_tracker(from, count);
            redirect.is_none_or(|id| core.has_client(id))
        },
        move |core, found, reply| {
            if found.contains(&true) {
                core.start_tracking(index, tracking);
                reply.ok();
            } else {
                reply.error(&NO_SUCH_CLIENT.to_string());
            }
            let count = core.tracker_count();
            core.everywhere(move |core| core.note_tracker(from, count));
        },
    )
}

/// How a client is to track; `None` if it is to end it. Errors: it cannot.
pub fn wanted(call: &Call<'_>, before: Option<&Tracking>) -> Result<Option<Tracking>, Refusal> {
    let wanted = Wanted::of(call)?;
    if !call.arguments.is(2, "on") {
        return Ok(None);
    }
    wanted.checked(before).map(Some)
}

/// The options of CLIENT TRACKING.
#[derive(Default)]
struct Wanted<'a> {
    mode: TrackingMode,
    modes: usize,
    no_loop: bool,
    redirect: Option<u64>,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    fn of(call: &Call<'a>) -> Result<Wanted<'a>, Refusal> {
        let mut wanted = Wanted::default();
        let (mut broadcast, mut opt_in, mut opt_out) = (false, false, false);
        let mut i = 3;
        while i < call.count() {
            let has_more = i + 1 < call.count();
            if call.arguments.is(i, "redirect") && has_more {
                i += 1;
                if wanted.redirect.is_some() {
                    return Err(Refusal::text(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = call.integer(i)?;
                wanted.redirect = Some(u64::try_from(id).map_err(|_| NO_SUCH_CLIENT)?);
            } else if call.arguments.is(i, "prefix") && has_more {
                i += 1;
                wanted.prefixes.push(call.at(i));
            } else if call.arguments.is(i, "bcast") {
                broadcast = true;
            } else if call.arguments.is(i, "optin") {
                opt_in = true;
            } else if call.arguments.is(i, "optout") {
                opt_out = true;
            } else if call.arguments.is(i, "noloop") {
                wanted.no_loop = true;
            } else {
                return Err(Refusal::Syntax);
            }
            i += 1;
        }
        wanted.mode = match (broadcast, opt_in, opt_out) {
            (true, ..) => TrackingMode::Broadcast,
            (_, true, _) => TrackingMode::OptIn,
            (_, _, true) => TrackingMode::OptOut,
            _ => TrackingMode::Default,
        };
        wanted.modes = usize::from(opt_in) + 2 * usize::from(opt_out);
        Ok(wanted)
    }

    fn checked(self, before: Option<&Tracking>) -> Result<Tracking, Refusal> {
        let broadcasts = self.mode == TrackingMode::Broadcast;
        if !self.prefixes.is_empty() && !broadcasts {
            return Err(Refusal::text("ERR PREFIX option requires BCAST mode to be enabled"));
        }
        if before.is_some_and(|before| (before.mode == TrackingMode::Broadcast) != broadcasts) {
            return Err(OTHER_BROADCAST);
        }
        if broadcasts && self.modes != 0 {
            return Err(Refusal::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
        }
        if self.modes == 3 {
            return Err(Refusal::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
        }
        let opposite = match self.mode {
            TrackingMode::OptIn => Some(TrackingMode::OptOut),
            TrackingMode::OptOut => Some(TrackingMode::OptIn),
            _ => None,
        };
        if opposite.is_some() && before.map(|before| before.mode) == opposite {
            return Err(OTHER_MODE);
        }
        let old = before.map_or(&[][..], |before| &before.prefixes);
        let mut prefixes = old.to_vec();
        if broadcasts {
            check_prefixes(&self.prefixes, old)?;
            prefixes.extend(self.prefixes.iter().map(|prefix| prefix.to_vec()));
            if prefixes.is_empty() {
                prefixes.push(Vec::new());
            }
        }
        let mode = match (self.mode, before) {
            (TrackingMode::Default, Some(before)) => before.mode,
            (mode, _) => mode,
        };
        let (no_loop, redirect) = (self.no_loop, self.redirect);
        let mut tracking = Tracking::default();
        (tracking.mode, tracking.no_loop) = (mode, no_loop);
        (tracking.redirect, tracking.prefixes) = (redirect, prefixes);
        Ok(tracking)
    }
}

/// CLIENT CACHING YES|NO
pub fn caching(
    context: &mut SessionContext<'_>,
    call: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let tracking = context.session().tracking.as_deref_mut();
    let chooses = |tracking: &&mut Tracking| {
        matches!(tracking.mode, TrackingMode::OptIn | TrackingMode::OptOut)
    };
    let Some(tracking) = tracking.filter(chooses) else {
        return Err(Refusal::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    let yes = call.arguments.is(2, "yes");
    if !yes && !call.arguments.is(2, "no") {
        return Err(Refusal::Syntax);
    }
    match (yes, tracking.mode) {
        (true, TrackingMode::OptOut) => {
            return Err(Refusal::text(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        (false, TrackingMode::OptIn) => {
            return Err(Refusal::text(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        _ => tracking.caching = true,
    }
    reply.ok();
    Ok(Answer::Now)
}

/// CLIENT GETREDIR
pub fn getredir(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    reply.integer(redirection(context.session().tracking.as_deref()));
    Ok(Answer::Now)
}

/// The client that is told instead: -1 when nothing is tracked, 0 when the one that tracks is told.
pub fn redirection(tracking: Option<&Tracking>) -> i64 {
    tracking.map_or(-1, |tracking| tracking.redirect.unwrap_or(0) as i64)
}

/// CLIENT TRACKINGINFO
pub fn trackinginfo(
    context: &mut SessionContext<'_>,
    _: &Call<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answer, Refusal> {
    let tracking = context.session().tracking.as_deref();
    let is = |mode| tracking.is_some_and(|tracking| tracking.mode == mode);
    let caching = tracking.is_some_and(|tracking| tracking.caching);
    let flags = [
        (tracking.is_none(), "off"),
        (tracking.is_some(), "on"),
        (is(TrackingMode::Broadcast), "bcast"),
        (is(TrackingMode::OptIn), "optin"),
        (is(TrackingMode::OptIn) && caching, "caching-yes"),
        (is(TrackingMode::OptOut), "optout"),
        (is(TrackingMode::OptOut) && caching, "caching-no"),
        (tracking.is_some_and(|tracking| tracking.no_loop), "noloop"),
        (tracking.is_some_and(|tracking| tracking.is_broken), "broken_redirect"),
    ];
    let set: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect();
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(set.len());
    set.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirection(tracking));
    reply.bulk(b"prefixes");
    let prefixes = tracking.map_or(&[][..], |tracking| &tracking.prefixes);
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(Answer::Now)
}

impl Core {
    fn has_client(&self, id: u64) -> bool {
        self.answers.connections.iter().any(|(_, c)| c.id == id && !c.closed)
    }
}
