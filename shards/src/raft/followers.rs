//! Which followers answer: the leader keeps the log for those that do, and counts on the rest to
//! need a snapshot.
//!
//! raft-rs' own mark (`recent_active`) is no measure: it is taken off everybody once per election
//! timeout, and a log compacted just then would leave every follower that lags a little to a
//! snapshot.

/// When each follower was heard last.
#[derive(Debug)]
pub(super) struct Followers {
    /// Silence for so many ticks makes a follower count as gone.
    patience: u64,
    now: u64,
    /// Nobody is gone before this node has led for as long.
    since: u64,
    heard: Vec<(u64, u64)>,
}

impl Followers {
    pub(super) fn new(election_ticks: usize) -> Followers {
        Followers { patience: 2 * election_ticks as u64, now: 0, since: 0, heard: Vec::new() }
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// Term or role changed.
    pub(super) fn clear(&mut self) {
        self.since = self.now;
        self.heard.clear();
    }

    /// It has answered.
    pub(super) fn heard(&mut self, from: u64) {
        match self.heard.iter_mut().find(|(node, _)| *node == from) {
            Some((_, at)) => *at = self.now,
            None => self.heard.push((from, self.now)),
        }
    }

    /// Has it answered lately?
    pub(super) fn is_active(&self, node: u64) -> bool {
        let heard = self.heard.iter().find(|(from, _)| *from == node).map(|(_, at)| *at);
        self.now - heard.unwrap_or(self.since) < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_noticed_after_two_election_timeouts() {
        let mut followers = Followers::new(3);
        followers.heard(2);
        for _ in 0..5 {
            followers.tick();
            assert!(followers.is_active(2) && followers.is_active(3));
        }
        followers.heard(2);
        followers.tick();
        assert!(followers.is_active(2) && !followers.is_active(3));
        followers.clear();
        assert!(followers.is_active(3), "a new leader waits before it judges");
    }
}
