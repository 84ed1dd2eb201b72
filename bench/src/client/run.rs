//! A run from its first request to its last: threads, warm-up, measured time, samples while it goes
//! on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::plan::{Length, Plan};
use super::progress::Progress;
use super::tally::Tally;
use super::worker::{Control, Meter, Phase, Worker};
use crate::cpus::{self, Cpus};

/// Time between two samples of throughput.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What a run measured.
pub struct Outcome {
    /// Of each load, in the plan's order.
    pub loads: Vec<LoadOutcome>,
    /// Length of the measured time.
    pub seconds: f64,
    /// Throughput over the measured time.
    pub samples: Vec<Sample>,
}

/// What one load measured.
pub struct LoadOutcome {
    /// Its name.
    pub name: String,
    /// Replies within the measured time.
    pub requests: u64,
    /// Latencies, hits, mistakes; the replies that came after the end included.
    pub tally: Tally,
}

/// One sample.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Seconds from the beginning of the measured time to the sample's end.
    pub at: f64,
    /// Requests per second since the sample before.
    pub rate: f64,
    /// The longest latency in it, microseconds.
    pub longest_us: f64,
}

/// What happens to whom a run tells what it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// The measured time begins.
    Begin,
    /// It goes on; seconds since it began.
    Tick(f64),
    /// It is over.
    End,
}

impl Outcome {
    /// Replies within the measured time, all loads.
    pub fn requests(&self) -> u64 {
        self.loads.iter().map(|load| load.requests).sum()
    }

    /// Requests per second, all loads.
    pub fn rate(&self) -> f64 {
        self.requests() as f64 / self.seconds
    }
}

/// Runs a plan against `target` with the client's threads on `cpus`, one after the other.
pub fn run(
    plan: &Plan,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
    watch: &mut dyn FnMut(Moment),
) -> Result<Outcome, String> {
    let first = match plan.length {
        Length::Seconds { .. } => Phase::WarmUp,
        Length::Requests(_) => Phase::Measured,
    };
    let control = Control::new(first);
    let meters: Vec<Vec<Meter>> = plan
        .loads
        .iter()
        .map(|load| (0..load.threads).map(|_| Meter::default()).collect())
        .collect();
    let tallies: Vec<Mutex<Tally>> = plan.loads.iter().map(|_| Mutex::new(Tally::new())).collect();
    let failure: Mutex<Option<String>> = Mutex::new(None);
    let failed = AtomicBool::new(false);
    let all = meters.iter().map(Vec::len).sum::<usize>();
    let start = Barrier::new(all + 1);

    let mut supervisor = Supervisor { control: &control, meters: &meters, progress, watch };
    let (seconds, counts, samples) = thread::scope(|scope| {
        let mut place = 0;
        for (index, load) in plan.loads.iter().enumerate() {
            for (number, meter) in meters[index].iter().enumerate() {
                let (control, start, tally) = (&control, &start, &tallies[index]);
                let (failure, failed, seat) = (&failure, &failed, place);
                place += 1;
                scope.spawn(move || {
                    if let Some(cpus) = cpus {
                        cpus::sit_down(cpus, seat);
                    }
                    if load.urgent {
                        cpus::hasten();
                    }
                    let worker = Worker::new(plan, load, number, target, control, meter);
                    failed.fetch_or(worker.is_err(), Ordering::SeqCst);
                    start.wait();
                    let run = match worker {
                        Ok(_) if failed.load(Ordering::SeqCst) => return,
                        Ok(worker) => worker.run(),
                        Err(error) => Err(error),
                    };
                    meter.ended.store(1, Ordering::Release);
                    match run {
                        Ok(counted) => tally.lock().expect("no thread panics").add(&counted),
                        Err(error) => {
                            let text = format!("load {}: {error}", load.name);
                            failure.lock().expect("no thread panics").get_or_insert(text);
                        }
                    }
                });
            }
        }
        start.wait();
        supervisor.supervise(plan.length)
    });
    if let Some(failure) = failure.into_inner().expect("no thread panics") {
        return Err(failure);
    }
    let loads = plan.loads.iter().zip(counts).zip(tallies).map(|((load, requests), tally)| {
        let tally = tally.into_inner().expect("no thread panics");
        LoadOutcome { name: load.name.clone(), requests, tally }
    });
    Ok(Outcome { loads: loads.collect(), seconds, samples })
}

/// Moves the run on and takes the samples.
struct Supervisor<'a> {
    control: &'a Control,
    meters: &'a [Vec<Meter>],
    progress: &'a mut Progress,
    watch: &'a mut dyn FnMut(Moment),
}

impl Supervisor<'_> {
    /// Length of the measured time, replies of each load in it, samples of it.
    fn supervise(&mut self, length: Length) -> (f64, Vec<u64>, Vec<Sample>) {
        let (warm_up, measured) = match length {
            Length::Seconds { warm_up, measured } => (warm_up, Some(measured)),
            Length::Requests(_) => (0.0, None),
        };
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < warm_up && !self.all_ended() {
            thread::sleep(SAMPLE_EVERY.min(Duration::from_secs_f64(warm_up)));
        }
        self.take_longest();
        let mut samples = Vec::new();
        let before = self.counts();
        (self.watch)(Moment::Begin);
        let begin = Instant::now();
        self.control.set(Phase::Measured);
        let (mut last_time, mut last_count) = (0.0, before.iter().sum::<u64>());
        loop {
            let now = begin.elapsed().as_secs_f64();
            let rest = measured.map_or(f64::INFINITY, |measured| measured - now);
            if rest <= 0.0 || self.all_ended() {
                break;
            }
            thread::sleep(SAMPLE_EVERY.min(Duration::from_secs_f64(rest.min(1.0))));
            let at = begin.elapsed().as_secs_f64();
            let count = self.counts().iter().sum::<u64>();
            let rate = (count - last_count) as f64 / (at - last_time);
            (last_time, last_count) = (at, count);
            let longest_us = self.take_longest() as f64 / 1e3;
            let sample = Sample { at, rate, longest_us };
            samples.push(sample);
            self.progress.show(&sample, measured);
            (self.watch)(Moment::Tick(at));
        }
        let after = self.counts();
        let seconds = begin.elapsed().as_secs_f64();
        (self.watch)(Moment::End);
        self.control.set(Phase::End);
        self.progress.clear();
        let counts = after.iter().zip(before).map(|(after, before)| after - before).collect();
        (seconds, counts, samples)
    }

    fn counts(&self) -> Vec<u64> {
        let of_load = |meters: &Vec<Meter>| {
            meters.iter().map(|meter| meter.replies.load(Ordering::Relaxed)).sum()
        };
        self.meters.iter().map(of_load).collect()
    }

    fn take_longest(&self) -> u64 {
        let all = self.meters.iter().flatten();
        all.map(|meter| meter.longest_ns.swap(0, Ordering::Relaxed)).max().unwrap_or(0)
    }

    fn all_ended(&self) -> bool {
        self.meters.iter().flatten().all(|meter| meter.ended.load(Ordering::Acquire) == 1)
    }
}
