//! Filling a server with every key of a scenario, checked by DBSIZE.

use std::net::SocketAddr;

use crate::client::call::Caller;
use crate::client::operations::Operation;
use crate::client::plan::{Data, Distribution, Length, Load, Pace, Plan};
use crate::client::progress::Progress;
use crate::client::run;
use crate::cpus::Cpus;
use crate::scenario::Scenario;

/// Requests sent together: enough to hide round trips and to share syncs, few enough to stay in
/// socket buffers.
const PIPELINE: usize = 100;

/// Connections.
const CONNECTIONS: usize = 8;

/// Sets every key, with `operation` (`set` or `setex`).
pub fn fill(
    data: &Data,
    operation: Operation,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    each(data, operation, data.keys, CONNECTIONS, target, cpus, progress)?;
    let held = Caller::open(target)?.number(&["DBSIZE"])?;
    if held < data.keys {
        return Err(format!("after filling in {} keys the server holds {held}", data.keys));
    }
    Ok(())
}

/// Gives a scenario's commands with the numbers from 0 on, in order.
pub fn prepare(
    scenario: &Scenario,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    for &(operation, count) in &scenario.prepare {
        let keys = count * operation.key_count(1).max(1) as u64;
        let data = Data { keys, ..scenario.plan.data };
        // By one connection: what is there afterwards shall not depend on who came first.
        each(&data, operation, count, 1, target, cpus, progress)?;
    }
    Ok(())
}

/// Sends an operation so often, with one number after the other.
fn each(
    data: &Data,
    operation: Operation,
    count: u64,
    connections: usize,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    let plan = Plan {
        data: *data,
        loads: vec![Load {
            name: "fill".into(),
            mix: vec![(operation, 1.0)],
            distribution: Distribution::Sequential,
            keys_per_command: 1,
            pipeline: PIPELINE,
            connections: connections.min(count as usize),
            threads: 1,
            pace: Pace::Closed,
            bursts: None,
            urgent: false,
        }],
        length: Length::Requests(count),
        verify_every: u64::MAX,
        seed: 1,
    };
    let outcome = run::run(&plan, target, cpus, progress, &mut |_| {})?;
    let tally = &outcome.loads[0].tally;
    if tally.refused + tally.wrong > 0 {
        return Err(format!("filling: {}", tally.complaint.as_deref().unwrap_or_default()));
    }
    Ok(())
}

/// Fills in what is missing: nothing if the server holds as many keys as there are.
pub fn ensure(
    data: &Data,
    target: SocketAddr,
    cpus: Option<&Cpus>,
    progress: &mut Progress,
) -> Result<(), String> {
    if Caller::open(target)?.number(&["DBSIZE"])? == data.keys {
        return Ok(());
    }
    fill(data, Operation::Set, target, cpus, progress)
}
