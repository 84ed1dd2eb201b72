//! What a load counted: latencies, hits, mistakes.

use hdrhistogram::Histogram;

use super::operations::Verdict;

/// Latencies in nanoseconds, three digits exact, up to the longest that is told apart.
pub type Latencies = Histogram<u64>;

/// Longer latencies count as this long, in nanoseconds.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// An empty histogram.
fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid")
}

/// Counts of one thread, or of several together.
#[derive(Clone)]
pub struct Tally {
    /// Replies.
    pub replies: u64,
    /// From the time a request was sent, or due, to its reply.
    pub latency: Latencies,
    /// Open loop: from the time a request was due to the time it was sent. What is long here is
    /// the client's fault, or that of a server whose socket buffers are full.
    pub lag: Latencies,
    /// Keys that reads found.
    pub hits: u64,
    /// Keys that reads did not find.
    pub misses: u64,
    /// Error replies.
    pub refused: u64,
    /// Replies of the wrong kind or content.
    pub wrong: u64,
    /// Replies whose content was compared.
    pub verified: u64,
    /// Requests without a reply when the run ended and the time to wait for stragglers had passed.
    pub unanswered: u64,
    /// The first error or wrong reply.
    pub complaint: Option<String>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            replies: 0,
            latency: latencies(),
            lag: latencies(),
            hits: 0,
            misses: 0,
            refused: 0,
            wrong: 0,
            verified: 0,
            unanswered: 0,
            complaint: None,
        }
    }

    /// `count` replies came `latency_ns` after their requests.
    pub fn answered(&mut self, latency_ns: u64, count: u64) {
        self.replies += count;
        let latency = latency_ns.clamp(1, LATENCY_NS_MAX);
        self.latency.record_n(latency, count).expect("within the bounds");
    }

    /// A request was sent `lag_ns` after it was due.
    pub fn sent(&mut self, lag_ns: u64) {
        self.lag.record(lag_ns.clamp(1, LATENCY_NS_MAX)).expect("within the bounds");
    }

    /// A reply was judged; `complaint` describes it if it is the first bad one.
    pub fn judged(&mut self, verdict: Verdict, complaint: impl FnOnce() -> String) {
        match verdict {
            Verdict::Fine { hits, misses } => {
                self.hits += u64::from(hits);
                self.misses += u64::from(misses);
                return;
            }
            Verdict::Refused => self.refused += 1,
            Verdict::Wrong => self.wrong += 1,
        }
        self.complaint.get_or_insert_with(complaint);
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Tally) {
        self.replies += other.replies;
        self.latency.add(&other.latency).expect("the same bounds");
        self.lag.add(&other.lag).expect("the same bounds");
        self.hits += other.hits;
        self.misses += other.misses;
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.verified += other.verified;
        self.unanswered += other.unanswered;
        if self.complaint.is_none() {
            self.complaint.clone_from(&other.complaint);
        }
    }

    /// Of the keys that were read, the part that was found; 1 when none was read.
    pub fn hit_ratio(&self) -> f64 {
        match self.hits + self.misses {
            0 => 1.0,
            read => self.hits as f64 / read as f64,
        }
    }

    /// The latency below which `percent` of the requests stayed, in microseconds.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.latency.value_at_percentile(percent) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_keep_the_first_complaint() {
        let mut first = Tally::new();
        first.hits = 3;
        first.latency.record_n(1_000, 99).expect("in range");
        let mut second = Tally::new();
        second.misses = 1;
        second.latency.record_n(50_000, 1).expect("in range");
        second.complaint = Some("ERR".into());
        first.add(&second);
        first.add(&Tally { complaint: Some("later".into()), ..Tally::new() });
        assert_eq!(first.hit_ratio(), 0.75);
        assert_eq!(first.complaint.as_deref(), Some("ERR"));
        assert!((first.percentile_us(99.0) - 1.0).abs() < 0.01);
        assert!((first.percentile_us(99.9) - 50.0).abs() < 0.1);
        assert_eq!(Tally::new().hit_ratio(), 1.0);
    }
}
