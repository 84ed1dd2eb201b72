//! Sessions that clients may take up again: so many of them, for so long.
//!
//! They belong to one configuration. When that is read anew its sessions are forgotten, so that
//! nobody comes in by what was checked against authorities that count no more.

use rustls::server::StoresServerSessions;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Sessions by their tickets.
#[derive(Debug)]
pub struct Store {
    /// Most of them; 0 is no bound.
    count_max: usize,
    lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// Their keys in the order in which they came; some may be gone, or have come again.
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty one.
    pub fn new(count_max: u32, lifetime_seconds: u32) -> Store {
        let lifetime = Duration::from_secs(lifetime_seconds.into());
        Store { count_max: count_max as usize, lifetime, state: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn put_at(&self, key: Vec<u8>, value: Vec<u8>, now: Instant) {
        let mut state = self.locked();
        state.order.push_back((now, key.clone()));
        state.sessions.insert(key, (now, value));
        while let Some((came, _)) = state.order.front() {
            let is_over = self.count_max != 0 && state.order.len() > self.count_max;
            if !is_over && now.duration_since(*came) <= self.lifetime {
                break;
            }
            let (came, key) = state.order.pop_front().expect("there is a first");
            if state.sessions.get(&key).is_some_and(|(newest, _)| *newest == came) {
                state.sessions.remove(&key);
            }
        }
    }

    fn get_at(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let state = self.locked();
        let (came, value) = state.sessions.get(key)?;
        (now.duration_since(*came) <= self.lifetime).then(|| value.clone())
    }
}

impl StoresServerSessions for Store {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(key, value, Instant::now());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_at(key, Instant::now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.get_at(key, Instant::now());
        self.locked().sessions.remove(key);
        found
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_kept_up_to_their_number_and_age() {
        let store = Store::new(3, 10);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for n in 0..5u8 {
            store.put_at(vec![n], vec![n, n], at(u64::from(n)));
        }
        let kept = |second| -> Vec<u8> {
            (0..5).filter(|n| store.get_at(&[*n], at(second)).is_some()).collect()
        };
        assert_eq!(kept(5), [2, 3, 4]);
        assert_eq!(kept(13), [3, 4], "too old, although still there");
        assert_eq!(store.take(&[3]), Some(vec![3, 3]));
        assert_eq!(store.take(&[3]), None, "a ticket is used once");
        store.put_at(vec![9], vec![], at(14));
        let count = store.locked().sessions.len();
        assert_eq!((kept(14), count), (vec![4], 2), "what is too old is gone");
    }

    #[test]
    fn one_that_came_again_is_as_young_as_the_last_time() {
        let store = Store::new(2, 100);
        let begin = Instant::now();
        store.put_at(vec![1], vec![1], begin);
        store.put_at(vec![1], vec![2], begin + Duration::from_secs(1));
        store.put_at(vec![2], vec![], begin + Duration::from_secs(2));
        assert_eq!(store.get_at(&[1], begin + Duration::from_secs(2)), Some(vec![2]));
    }
}
