//! Reads at a node that does not lead: of what is applied here, or of all that was acknowledged
//! anywhere.
//!
//! For the latter the leader is asked, once for all reads of a turn, how far its log was committed
//! when it certainly led ([`Server::question`]), and what time it was there. The reads are executed
//! here when that much is applied, by that time: so what has ended for the leader has ended here,
//! whatever the clock of this node shows.
//!
//! | what the host hears | when |
//! |---|---|
//! | [`Host::read_by`], [`Host::answer`] | as much is applied as the read is to see |
//! | [`Host::fail`] with [`Fate::NotLeader`] | it was not for too long, or nobody has answered: the read has no effect, and is for the leader |

use super::{Fate, Host, Server};
use crate::ids::Index;
use std::collections::VecDeque;

/// What a read at a node that does not lead is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All that was acknowledged before it was sent.
    Acknowledged,
    /// What is applied, once that is as much as this.
    Applied(Index),
}

/// What a leader answers to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certainty {
    /// So much of its log was committed while it certainly led.
    pub index: Index,
    /// Its time then, milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Reads that wait for an index.
struct Due<K> {
    at: Index,
    /// The time by which they are judged; its own for a node that was not told.
    time_ms: Option<i64>,
    /// Ticks for which they have waited.
    age: u32,
    reads: Vec<K>,
}

/// Reads of a shard that another node leads.
pub(super) struct Following<H: Host> {
    /// For which nobody was asked yet.
    fresh: Vec<H::Kept>,
    /// Questions under way: their numbers, the ticks since they were asked, their reads.
    asked: VecDeque<(u64, u32, Vec<H::Kept>)>,
    due: Vec<Due<H::Kept>>,
    /// Does one of them wait for what may be committed already, and is not known here to be?
    lacks_news: bool,
    questions: u64,
}

impl<H: Host> Default for Following<H> {
    fn default() -> Self {
        Following {
            fresh: Vec::new(),
            asked: VecDeque::new(),
            due: Vec::new(),
            lacks_news: false,
            questions: 0,
        }
    }
}

impl<H: Host> Server<H> {
    /// Takes a read that is to be executed here whoever leads. [`serve_followers`] executes it.
    pub fn follow(&mut self, kept: H::Kept, sight: Sight) {
        match sight {
            Sight::Acknowledged => self.following.fresh.push(kept),
            Sight::Applied(at) => {
                self.following.lacks_news |= at > self.group.applied_index();
                let due = &mut self.following.due;
                match due.iter_mut().find(|d| d.at == at && d.age == 0 && d.time_ms.is_none()) {
                    Some(due) => due.reads.push(kept),
                    None => due.push(Due { at, time_ms: None, age: 0, reads: vec![kept] }),
                }
            }
        }
    }

    /// Is there something for [`serve_followers`] to do, or somebody to ask?
    #[inline(always)]
    pub fn follows(&self) -> bool {
        let following = &self.following;
        !(following.due.is_empty() && following.fresh.is_empty())
    }

    /// Reads that wait here although another node leads.
    pub fn following_count(&self) -> usize {
        let following = &self.following;
        let asked: usize = following.asked.iter().map(|(.., reads)| reads.len()).sum();
        let due: usize = following.due.iter().map(|due| due.reads.len()).sum();
        following.fresh.len() + asked + due
    }

    /// The number of a question to the leader for all reads that came since the last one, if there
    /// are some. A leader that is asked tells what is committed, so it is asked as well for
    /// those that wait for that.
    pub fn ask_leader(&mut self) -> Option<u64> {
        let following = &mut self.following;
        let lacks_news = std::mem::take(&mut following.lacks_news);
        if following.fresh.is_empty() && !lacks_news {
            return None;
        }
        following.questions += 1;
        debug_assert!(
            following.asked.back().is_none_or(|(last, ..)| *last < following.questions),
            "questions have numbers of their own"
        );
        if following.fresh.is_empty() {
            return Some(following.questions);
        }
        let reads = std::mem::take(&mut following.fresh);
        following.asked.push_back((following.questions, 0, reads));
        Some(following.questions)
    }

    /// The leader's answer to a question of this number. Without a certainty the reads are for
    /// whoever leads.
    pub fn answered(&mut self, number: u64, certainty: Option<Certainty>) {
        let asked = &mut self.following.asked;
        let Some(place) = asked.iter().position(|(known, ..)| *known == number) else { return };
        let (_, _, reads) = asked.remove(place).expect("just found");
        // Whoever cannot be told is let go by the next tick.
        let (at, time_ms, age) = match certainty {
            Some(certainty) => (certainty.index, Some(certainty.time_ms), 0),
            None => (Index(u64::MAX), None, u32::MAX),
        };
        self.following.due.push(Due { at, time_ms, age, reads });
    }
}

/// Executes what may be executed by now.
#[inline]
pub fn serve_followers<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    if !host.server().following.due.is_empty() {
        serve_due(host, turn);
    }
}

#[cold]
fn serve_due<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let server = host.server_mut();
    let applied = server.group.applied_index();
    let entry_ms = server.entry_ms;
    let all = std::mem::take(&mut server.following.due);
    let mut later = Vec::new();
    for due in all {
        if due.age == u32::MAX {
            let_go(host, due.reads, turn);
        } else if due.at <= applied {
            debug_assert!(!due.reads.is_empty() || due.time_ms.is_none(), "reads were asked for");
            // By a later time than the leader's if what is applied was judged by one.
            let time_ms = due.time_ms.map(|time_ms| time_ms.max(entry_ms));
            if let Some(time_ms) = time_ms {
                host.server_mut().clock.applied(time_ms);
            }
            host.read_all_by(&due.reads, time_ms, turn);
        } else {
            later.push(due);
        }
    }
    host.server_mut().following.due.append(&mut later);
}

/// Time passes: what has waited for more than so many ticks is for whoever leads.
pub fn tick_followers<H: Host>(host: &mut H, patience: u32, turn: &mut H::Turn<'_>) {
    let following = &mut host.server_mut().following;
    if following.asked.is_empty() && following.due.is_empty() {
        return;
    }
    let mut late = Vec::new();
    following.due.iter_mut().for_each(|due| due.age = due.age.saturating_add(1));
    following.due.retain_mut(|due| {
        let stays = due.age <= patience;
        if !stays {
            late.append(&mut due.reads);
        }
        stays
    });
    following.asked.iter_mut().for_each(|(_, age, _)| *age += 1);
    while following.asked.front().is_some_and(|(_, age, _)| *age > patience) {
        late.extend(following.asked.pop_front().into_iter().flat_map(|(.., reads)| reads));
    }
    let_go(host, late, turn);
}

/// Nobody is there any more to answer what was asked: the reads are for whoever leads next.
pub fn forget_questions<H: Host>(host: &mut H, turn: &mut H::Turn<'_>) {
    let following = &mut host.server_mut().following;
    let asked = std::mem::take(&mut following.asked);
    let fresh = std::mem::take(&mut following.fresh);
    let reads = asked.into_iter().flat_map(|(.., reads)| reads).chain(fresh).collect();
    let_go(host, reads, turn);
}

fn let_go<H: Host>(host: &mut H, reads: Vec<H::Kept>, turn: &mut H::Turn<'_>) {
    let leader = host.server().group.leader();
    for kept in reads {
        host.fail_kept(kept, Fate::NotLeader { leader }, turn);
    }
}
