//! What to do: the client's orders, after a scenario was read and checked.

use std::time::Duration;

use super::operations::Operation;
use super::values::Sizes;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The keys and values.
    pub data: Data,
    /// Groups of connections that run at the same time; at least one.
    pub loads: Vec<Load>,
    /// When it ends.
    pub length: Length,
    /// Of so many replies one has its content compared with what its key says; the kind is looked
    /// at in each.
    pub verify_every: u64,
    /// The same seed sends the same requests.
    pub seed: u64,
}

/// The keys and values that requests speak of.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// How many keys; at least 1.
    pub keys: u64,
    /// Bytes of each key.
    pub key_size: usize,
    /// Bytes of the values.
    pub sizes: Sizes,
    /// Time to live that `setex` gives.
    pub ttl_seconds: u64,
}

/// One group of connections.
#[derive(Clone, Debug)]
pub struct Load {
    /// What reports call it.
    pub name: String,
    /// What it asks, each with its share of the requests; shares are above 0 and need not add up
    /// to 1.
    pub mix: Vec<(Operation, f64)>,
    /// Which keys it asks for.
    pub distribution: Distribution,
    /// Keys of one `mget` or `mset`.
    pub keys_per_command: usize,
    /// Requests sent together.
    pub pipeline: usize,
    /// Connections, over all threads.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// When the next requests are sent.
    pub pace: Pace,
    /// Of a closed loop: it rests now and then.
    pub bursts: Option<Bursts>,
    /// Whether its threads go before those of other loads where they share a cpu, if this process
    /// may ask for that.
    pub urgent: bool,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Some much more often than others.
    Zipf {
        /// Above 0; larger is more uneven.
        exponent: f64,
    },
    /// One after the other.
    Sequential,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A connection sends when all it sent before was answered.
    Closed,
    /// Requests arrive on time, whether earlier ones were answered or not; latency counts from
    /// then.
    Open {
        /// Requests per second over all threads.
        rate: f64,
        /// Whether gaps vary as those of independent clients do; else they are equal.
        poisson: bool,
    },
}

/// A load that comes and goes: for some time it asks, for some time it does not, and so on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// How long it asks.
    pub on: Duration,
    /// How long it rests then.
    pub off: Duration,
}

impl Bursts {
    /// Does it ask, so long after the run began?
    pub fn is_on(&self, now: Duration) -> bool {
        self.place(now) < self.on.as_nanos()
    }

    /// How long it goes on as it is.
    pub fn until_change(&self, now: Duration) -> Duration {
        let (place, on) = (self.place(now), self.on.as_nanos());
        let end = if place < on { on } else { on + self.off.as_nanos() };
        Duration::from_nanos((end - place) as u64)
    }

    fn place(&self, now: Duration) -> u128 {
        now.as_nanos() % (self.on + self.off).as_nanos()
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// After some time, and what is measured begins only after a warm-up.
    Seconds {
        /// Not measured.
        warm_up: f64,
        /// Measured.
        measured: f64,
    },
    /// After so many requests of each load, all measured.
    Requests(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_come_and_go() {
        let ms = Duration::from_millis;
        let bursts = Bursts { on: ms(20), off: ms(30) };
        for (at, on, rest) in
            [(0, true, 20), (19, true, 1), (20, false, 30), (49, false, 1), (50, true, 20)]
        {
            assert_eq!((bursts.is_on(ms(at)), bursts.until_change(ms(at))), (on, ms(rest)), "{at}");
        }
    }
}
