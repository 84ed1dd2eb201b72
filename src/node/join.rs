//! Asks a cluster to be taken in: what a first start with `--join` does before anything else.
//!
//! The question is a command over a client's connection, sealed with the secret; any node passes it
//! on to the one that leads. Asked again, a directory gets the same number: whatever is interrupted
//! here, the next start goes on.

use super::Refusal;
use super::directory::Identity;
use super::life::Life;
use crate::client::{Answer, Client, Target, Tls};
use ringraft_shards::ids::{ClusterId, NodeId};
use ringraft_shards::peer::Secret;
use ringraft_shards::raft::ProposeError;
use ringraft_shards::slot::SlotScheme;
use ringraft_shards::transaction::NO_LEADER;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nodes are asked that do not answer: they may be starting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one of them may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// What a node says of itself when it asks.
pub struct Asking<'a> {
    /// Nodes to ask, with commas.
    pub seeds: &'a str,
    /// The directory that asks.
    pub life: Life,
    /// Where this node will be reached.
    pub address: &'a str,
    /// Its cores.
    pub cores: usize,
    /// The newest feature level that it knows.
    pub level: u32,
    /// The cluster's secret.
    pub secret: &'a Secret,
    /// What TLS begins with, where nodes speak it with each other.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Joins. Blocks until the cluster has decided.
/// Errors: nobody answers, or what a node says.
pub fn join(asking: &Asking<'_>, now_ms: u64) -> Result<Identity, Refusal> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let mut last = String::new();
        for seed in asking.seeds.split(',') {
            match ask(seed, asking, now_ms) {
                Ok(identity) => return Ok(identity),
                Err(Failed::Refused(text)) => {
                    return Err(Refusal::failure(format!(
                        "cannot join the cluster at {seed}: {text}"
                    )));
                }
                Err(Failed::Unreachable(text)) => last = format!("{seed}: {text}"),
            }
        }
        if begun.elapsed() >= PATIENCE {
            return Err(Refusal::failure(format!(
                "cannot join a cluster: {last}: start that node first, or name another one with --join"
            )));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for a node to join: {last}");
        }
        std::thread::sleep(PAUSE);
    }
}

enum Failed {
    /// Somebody has decided.
    Refused(String),
    /// It may be otherwise in a moment.
    Unreachable(String),
}

fn ask(seed: &str, asking: &Asking<'_>, now_ms: u64) -> Result<Identity, Failed> {
    let (host, port) = seed.rsplit_once(':').ok_or(Failed::Refused("it is no address".into()))?;
    let (host, port) = (host.trim_matches(['[', ']']).to_string(), port.parse().unwrap_or(0));
    let tls = asking.tls.clone().map(Tls);
    let target = Target { host, port, tls, ..Target::default() };
    let mut client = Client::connect(&target).map_err(Failed::Unreachable)?;
    client.patience(ANSWER_TIMEOUT).map_err(|error| Failed::Unreachable(error.to_string()))?;
    let words = [
        format!("{:032x}", asking.life.directory.0),
        asking.address.to_string(),
        asking.cores.to_string(),
        asking.level.to_string(),
    ];
    let seal = asking.secret.seal(words.concat().as_bytes());
    let seal: String = seal.iter().map(|byte| format!("{byte:02x}")).collect();
    let all = ["RAFTJOIN"].into_iter().chain(words.iter().map(String::as_str)).chain([&*seal]);
    // Told apart from one that others could not reach.
    let all: Vec<&str> = all.chain(asking.tls.as_ref().map(|_| "tls")).collect();
    let answer = client.ask_plainly(&all).map_err(|error| match error.kind() {
        // TLS says so: no patience helps.
        std::io::ErrorKind::InvalidData => Failed::Refused(format!(
            "{error}: --join names a node's tls-port, and all certificates are signed by one authority"
        )),
        _ => Failed::Unreachable(error.to_string()),
    })?;
    match answer {
        Answer::Error(text) if is_passing(&text) => Err(Failed::Unreachable(text)),
        // It sends requests to nobody: the leader is asked itself.
        Answer::Error(text) if text.starts_with("TRY ") => ask(text[4..].trim(), asking, now_ms),
        Answer::Error(text) => Err(Failed::Refused(text)),
        Answer::Array(items) => match items.as_slice() {
            [Answer::Integer(node), Answer::Bulk(told)] => read_told(*node, told, now_ms),
            _ => Err(Failed::Refused("it has given an answer that means nothing".into())),
        },
        _ => Err(Failed::Refused("it is no ringraft, or one of another version".into())),
    }
}

/// Is it an answer of a moment in which nobody leads, or another node is about to, or of a node
/// that starts or has much to do? A directory that asks twice is told the same.
fn is_passing(text: &str) -> bool {
    const PASSING: [&str; 4] =
        [NO_LEADER, "ERR the outcome is not known", "leadership lost", "LOADING"];
    let refused = [
        ProposeError::NotLeader { leader: None },
        ProposeError::Transferring,
        ProposeError::Busy,
        ProposeError::MembershipPending,
    ];
    let is_refused = |error: &ProposeError| text == format!("ERR {error}");
    PASSING.iter().any(|start| text.starts_with(start)) || refused.iter().any(is_refused)
}

fn read_told(node: i64, told: &[u8], now_ms: u64) -> Result<Identity, Failed> {
    let told = String::from_utf8_lossy(told);
    let words: Vec<&str> = told.split(' ').collect();
    let read = || {
        let [cluster, shards, scheme, seed] = words.as_slice() else { return None };
        Some(Identity {
            cluster: ClusterId(u128::from_str_radix(cluster, 16).ok()?),
            node: NodeId(u64::try_from(node).ok().filter(|node| *node > 0)?),
            shard_count: shards.parse().ok().filter(|count| *count > 0)?,
            slot_scheme: SlotScheme::of_name(scheme)?,
            key_hash_seed: u64::from_str_radix(seed, 16).ok()?,
            created_ms: now_ms,
        })
    };
    read().ok_or(Failed::Refused(format!("it has told what means nothing: {told}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_in_an_election_or_a_transfer_asks_again() {
        for text in [
            NO_LEADER,
            "ERR leadership is being transferred",
            "ERR not the leader",
            "ERR too many writes are under way",
            "ERR the outcome is not known: the node that leads was lost, and may have executed it",
            "LOADING ringraft is loading the dataset in memory",
        ] {
            assert!(is_passing(text), "{text}");
        }
        for text in ["ERR another node of this cluster is at a:1", "NOPERM", "ERR it was removed"] {
            assert!(!is_passing(text), "{text}");
        }
    }
}
