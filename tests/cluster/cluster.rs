//! Servers that are one cluster, for tests.

use crate::support::{Client, Program, Server, eventually};

/// The servers. Some may be down.
pub struct Cluster {
    /// Node `n` is the server at place `n - 1`, unless a test has replaced it.
    pub servers: Vec<Server>,
    is_up: Vec<bool>,
}

impl Cluster {
    /// Forms a cluster of so many nodes, all of them voters.
    pub fn form(count: usize, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::empty();
        for _ in 0..count {
            cluster.add(arguments);
        }
        cluster.settle();
        cluster
    }

    /// Starts one more node, which founds the cluster or joins it. Returns its place.
    pub fn add(&mut self, arguments: &[&str]) -> usize {
        self.add_prepared(arguments, |_| {})
    }

    /// A cluster without nodes.
    pub fn empty() -> Cluster {
        Cluster { servers: Vec::new(), is_up: Vec::new() }
    }

    /// As [`Cluster::add`]; something is done to the server before it is launched.
    pub fn add_prepared(&mut self, arguments: &[&str], prepare: impl FnOnce(&mut Server)) -> usize {
        let seed = self.servers.first().map(|first| first.port().to_string());
        let join = seed.as_deref().map(|seed| ["--join", seed]);
        let arguments: Vec<&str> =
            arguments.iter().copied().chain(join.into_iter().flatten()).collect();
        self.start(&arguments, prepare)
    }

    /// Starts one more node, which joins by the node at this port. Returns its place.
    pub fn add_by(&mut self, port: &str) -> usize {
        self.start(&["--join", port], |_| {})
    }

    fn start(&mut self, arguments: &[&str], prepare: impl FnOnce(&mut Server)) -> usize {
        let mut server = Server::prepare(Program::Ringraft, arguments);
        prepare(&mut server);
        server.launch();
        self.servers.push(server);
        self.is_up.push(true);
        self.servers.len() - 1
    }

    /// Waits until somebody leads, all nodes that are up say the same of it, and all of them vote.
    pub fn settle(&self) -> usize {
        let leader = self.leader();
        eventually("every node that is up has a vote", || {
            let list = self.members(leader);
            let voters = list.iter().filter(|line| line.contains("suffrage=0")).count();
            // An odd number from three on.
            let up = self.up().count();
            let wanted = if up > 2 { up - usize::from(up.is_multiple_of(2)) } else { up };
            (voters >= wanted).then_some(())
        });
        self.leader()
    }

    /// The nodes that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.servers.len()).filter(|n| self.is_up[*n])
    }

    /// A connection to a node.
    pub fn client(&self, node: usize) -> Client {
        self.servers[node].client()
    }

    /// The lines of MEMBER LIST at a node.
    pub fn members(&self, node: usize) -> Vec<String> {
        let text = self.client(node).say("MEMBER LIST").text();
        text.lines().map(str::to_string).collect()
    }

    /// The node that leads, once all nodes that are up agree.
    pub fn leader(&self) -> usize {
        eventually("all nodes know the same leader", || {
            let mut leaders: Vec<String> = Vec::new();
            for node in self.up() {
                let list = self.members(node);
                let leads = list.iter().find(|line| line.ends_with("isLeader=true"))?;
                leaders.push(field(leads, "address"));
            }
            leaders.dedup();
            let [address] = leaders.as_slice() else { return None };
            self.up().find(|node| address.ends_with(&format!(":{}", self.servers[*node].port())))
        })
    }

    /// The term of shard 0's group, as a node knows it.
    pub fn term(&self, node: usize) -> u64 {
        let line = self.servers[node].info("raft0");
        let term = line.split(',').find_map(|field| field.strip_prefix("term="));
        term.and_then(|term| term.parse().ok()).expect("a term")
    }

    /// A node that is up and does not lead.
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        self.up().find(|node| *node != leader).expect("there are several")
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        self.servers[node].kill();
        self.is_up[node] = false;
    }

    /// SIGTERM; it must end well.
    pub fn terminate(&mut self, node: usize) {
        let (status, output) = self.servers[node].terminate();
        assert!(status.success(), "{status}: {output}");
        self.is_up[node] = false;
    }

    /// Starts a node that is down.
    pub fn launch(&mut self, node: usize) {
        self.servers[node].launch();
        self.is_up[node] = true;
    }

    /// The node has ended by itself; what it printed.
    pub fn ended(&mut self, node: usize) -> (std::process::ExitStatus, String) {
        self.is_up[node] = false;
        self.servers[node].wait_for_exit()
    }

    /// Waits until all nodes that are up have the same data.
    pub fn is_level(&self) {
        eventually("all nodes have the same data", || {
            let digest = |node: usize| self.client(node).say("DEBUG DIGEST");
            let mut digests: Vec<String> = self.up().map(|n| digest(n).text()).collect();
            let wanted = digests.len().min(3);
            // Who stands by has nothing.
            digests.retain(|digest| digest.bytes().any(|byte| byte != b'0'));
            let is_enough = digests.is_empty() || digests.len() >= wanted;
            (is_enough && digests.iter().all(|digest| *digest == digests[0])).then_some(())
        });
    }
}

/// A field of a line of MEMBER LIST.
pub fn field(line: &str, name: &str) -> String {
    let prefix = format!("{name}=");
    let value = line.split(' ').find_map(|word| word.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).to_string()
}

impl Cluster {
    /// A server that a test has pushed is up.
    pub fn came_up(&mut self) {
        self.is_up.push(true);
    }

    /// A node sleeps, or does no more: it is not asked for what all know.
    pub fn is_asleep(&mut self, node: usize, sleeps: bool) {
        self.is_up[node] = !sleeps;
    }
}
