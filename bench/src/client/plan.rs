//! What to do: the client's orders, after a scenario was read and checked.

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
    /// Of so many replies one has its content compared with what its key says; the kind is looked at in each.
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
    /// What it asks, each with its share of the requests; shares are above 0 and need not add up to 1.
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
    /// Whether its threads go before those of other loads where they share a cpu, if this process may ask for that.
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
    /// Requests arrive on time, whether earlier ones were answered or not; latency counts from then.
    Open {
        /// Requests per second over all threads.
        rate: f64,
        /// Whether gaps vary as those of independent clients do; else they are equal.
        poisson: bool,
    },
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
