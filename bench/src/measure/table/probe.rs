//! What one client does to another: a probe asks for a small key at a fixed rate while something
//! large goes on.
//!
//! A reply that is late makes the next questions late, and these count from the time they were due:
//! a server that is held for 100 ms has made some hundred questions wait. That the probe itself was
//! woken late does not count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::elements::Builder;
use crate::arm::Arm;
use crate::client::resp::encode;
use crate::client::tally::Tally;
use crate::cpus::{self, Cpus};
use crate::proc::CpuTime;

/// Time between two questions.
const EVERY: Duration = Duration::from_micros(250);

/// What happens is watched for at least so long, so that a percentile of 99.9 leaves out four
/// questions.
const WATCHED_MIN: Duration = Duration::from_secs(1);

/// And so long after it is answered: what was put off is felt then.
const WATCHED_AFTER: Duration = Duration::from_millis(500);

/// The key that is asked for.
const KEY: &str = "probe";

/// How long a server may take until it is idle.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);

/// What the probe felt, in microseconds, and how long it looked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Felt {
    pub p999_us: f64,
    pub max_us: f64,
    pub seconds: f64,
}

/// Does something while a probe asks.
pub(super) fn beside(
    arm: &Arm,
    cpus: &Cpus,
    act: impl FnOnce() -> Result<(), String>,
) -> Result<Felt, String> {
    let mut caller = arm.connect()?;
    caller.call(&["SET", KEY, "x"])?;
    let mut question = Vec::new();
    encode(&mut question, &[b"GET", KEY.as_bytes()]);
    let (recording, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let probe = scope.spawn(|| {
            cpus::sit_down(cpus, 0);
            cpus::hasten();
            let mut tally = Tally::new();
            while !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                caller.send_all(&question, 1)?;
                let mut waited = begin.elapsed();
                if recording.load(Ordering::Relaxed) {
                    tally.answered(waited.as_nanos() as u64, 1);
                    // Others would have asked meanwhile. What the probe sleeps too long is left out.
                    while waited > EVERY {
                        waited -= EVERY;
                        tally.answered(waited.as_nanos() as u64, 1);
                    }
                }
                thread::sleep(EVERY.saturating_sub(waited));
            }
            Ok::<Tally, String>(tally)
        });
        recording.store(true, Ordering::Relaxed);
        let begin = Instant::now();
        let acted = act();
        let rest = WATCHED_MIN.saturating_sub(begin.elapsed()).max(WATCHED_AFTER);
        if acted.is_ok() {
            thread::sleep(rest);
        }
        stop.store(true, Ordering::Relaxed);
        let tally = probe.join().expect("the probe does not panic")?;
        acted?;
        Ok(Felt {
            p999_us: tally.percentile_us(99.9),
            max_us: tally.percentile_us(100.0),
            seconds: begin.elapsed().as_secs_f64(),
        })
    })
}

/// Cpu that a command takes, from an idle server to an idle server, in microseconds.
pub(super) fn cost_us(builder: &mut Builder, arm: &Arm, words: &[Vec<u8>]) -> Result<f64, String> {
    let before = idle_cpu(arm)?;
    builder.command(words)?;
    Ok(idle_cpu(arm)?.since(&before) * 1e6)
}

/// The cpu time of a server once it uses none.
fn idle_cpu(arm: &Arm) -> Result<CpuTime, String> {
    const LOOK_EVERY: Duration = Duration::from_micros(300);
    let begin = Instant::now();
    let mut last = CpuTime::of(arm.pid())?;
    while begin.elapsed() < IDLE_TIME_MAX {
        thread::sleep(LOOK_EVERY);
        let now = CpuTime::of(arm.pid())?;
        if now.since(&last) == 0.0 {
            return Ok(now);
        }
        last = now;
    }
    Err(format!("{} was not idle for {IDLE_TIME_MAX:?}", arm.name))
}
