//! Three nodes of etcd on this machine, killed by their pids when dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::arm::free_port;
use crate::cpus::{self, Cpus};

/// How long an election may take until one leads.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Time between two looks whether somebody leads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A cluster of etcd.
pub struct Etcd {
    nodes: Vec<Node>,
    leader: SocketAddr,
}

struct Node {
    child: Child,
    clients: SocketAddr,
    /// Removed with its content when the node goes.
    _directory: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Etcd {
    /// Starts `program` so often and waits until one of them leads.
    pub fn start(program: &str, count: usize, cpus: &Cpus) -> Result<Etcd, String> {
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push((free_port()?, free_port()?));
        }
        let members: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, (_, peers))| format!("n{index}=http://127.0.0.1:{peers}"))
            .collect();
        let mut nodes = Vec::new();
        for (index, (clients, peers)) in ports.iter().enumerate() {
            let directory = tempfile::tempdir().map_err(|error| format!("a directory: {error}"))?;
            let peers = format!("http://127.0.0.1:{peers}");
            let address = format!("http://127.0.0.1:{clients}");
            let mut process = Command::new(program);
            process
                .args(["--name", &format!("n{index}"), "--data-dir"])
                .arg(directory.path())
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
                .args(["--initial-cluster", &members.join(",")])
                .args(["--logger", "zap", "--log-level", "panic"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let child = cpus::on(Some(cpus), || process.spawn())
                .map_err(|error| format!("{program}: {error}"))?;
            let clients = SocketAddr::from(([127, 0, 0, 1], *clients));
            nodes.push(Node { child, clients, _directory: directory });
        }
        let leader = wait_for_leader(&mut nodes)?;
        Ok(Etcd { nodes, leader })
    }

    /// Where the node listens that leads.
    pub fn leader(&self) -> SocketAddr {
        self.leader
    }

    /// The nodes' processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.child.id()).collect()
    }
}

fn wait_for_leader(nodes: &mut [Node]) -> Result<SocketAddr, String> {
    let begin = Instant::now();
    while begin.elapsed() < START_TIME_MAX {
        for node in &mut *nodes {
            if let Ok(Some(status)) = node.child.try_wait() {
                return Err(format!("etcd ended at its start: {status}"));
            }
            if leads(node.clients) == Some(true) {
                return Ok(node.clients);
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(format!("no node of etcd led within {START_TIME_MAX:?}"))
}

/// Is a node the one that leads? None while it cannot say.
fn leads(node: SocketAddr) -> Option<bool> {
    let mut stream = TcpStream::connect(node).ok()?;
    let request =
        "POST /v3/maintenance/status HTTP/1.0\r\nHost: etcd\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let status: serde_json::Value = serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()?;
    let leader = status.get("leader")?.as_str()?;
    Some(leader != "0" && status.get("header")?.get("member_id")?.as_str()? == leader)
}
