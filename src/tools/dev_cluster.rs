//! `ringraft dev-cluster`: a cluster of processes on this machine, for trials and tests.
//!
//! What was asked for is in `dev-cluster.json`; node N has its data, its log and its pid below
//! `node-N`. A process is taken for a node only if it runs with that node's data directory. Nodes
//! join one after the other, so that node N is number N of the cluster.

use super::picture::{Member, Picture, members};
use super::process::{self, Process};
use super::{PATIENCE, State, print, status, table, tell};
use crate::client::{Answer, Client, Target, failed};
use crate::files;
use crate::options::{self, Request};
use crate::settings::Settings;
use crate::settings::values::Mode;
use ringraft_shards::meta::meta_seats;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// What was asked for at the start.
const FILE: &str = "dev-cluster.json";
/// Nodes and their first port, where nobody says.
const NODES_DEFAULT: u16 = 3;
const PORT_DEFAULT: u16 = 7001;
/// Processes that one machine is asked to bear.
const NODES_MAX: u16 = 32;
/// How long a node may take to answer, and the cluster to be whole.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to end in order: it hands over, and waits for what is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What is asked for, and of which cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where it lives.
    pub directory: PathBuf,
    /// What to do.
    pub act: Act,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start what does not run.
    Start(Wanted),
    /// End all nodes in order.
    Stop,
    /// Show them.
    Status,
    /// End one at once.
    Kill(u16),
}

/// What a start is told; what it is not told is as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: Option<u16>,
    /// The port of the first.
    pub port: Option<u16>,
    /// Options for each.
    pub options: Option<Vec<String>>,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    nodes: u16,
    port: u16,
    options: Vec<String>,
}

/// The cluster of a directory.
struct Cluster {
    directory: PathBuf,
    plan: Plan,
    /// How its nodes are asked.
    password: String,
}

/// Where a cluster lives if nobody says.
pub const DIRECTORY_DEFAULT: &str = "./dev-cluster";

/// How this tool is called for a cluster.
fn again(directory: &Path, act: &str) -> String {
    let same = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match same(directory) == same(Path::new(DIRECTORY_DEFAULT)) {
        true => format!("ringraft dev-cluster {act}"),
        false => format!("ringraft dev-cluster {act} --dir {}", directory.display()),
    }
}

/// Does it.
/// Errors: one line with what is wrong and what to do.
pub fn run(call: &Call) -> Result<State, String> {
    match &call.act {
        Act::Start(wanted) => {
            fs::create_dir_all(&call.directory)
                .map_err(|error| format!("cannot create {}: {error}", call.directory.display()))?;
            let _lock = lock(&call.directory)?;
            let cluster = Cluster::open_or_plan(&call.directory, wanted)?;
            cluster.start()?;
            Ok(State::Well)
        }
        Act::Stop => {
            let cluster = Cluster::open(&call.directory)?;
            let _lock = lock(&call.directory)?;
            cluster.stop()?;
            Ok(State::Well)
        }
        Act::Status => Cluster::open(&call.directory)?.show(),
        Act::Kill(node) => {
            Cluster::open(&call.directory)?.kill(*node)?;
            Ok(State::Well)
        }
    }
}

/// Nobody else starts or stops the same cluster meanwhile.
fn lock(directory: &Path) -> Result<File, String> {
    let file = File::open(directory)
        .map_err(|error| format!("cannot open {}: {error}", directory.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another ringraft dev-cluster is at work in {}: wait for its end",
            directory.display()
        )),
        Err(TryLockError::Error(error)) => {
            Err(format!("cannot lock {}: {error}", directory.display()))
        }
    }
}

impl Plan {
    /// What is remembered, changed by what is wanted now.
    /// Errors: the two contradict each other.
    fn with(old: Option<Plan>, wanted: &Wanted) -> Result<Plan, String> {
        let nodes = wanted.nodes.or(old.as_ref().map(|old| old.nodes)).unwrap_or(NODES_DEFAULT);
        let port = wanted.port.or(old.as_ref().map(|old| old.port)).unwrap_or(PORT_DEFAULT);
        let before = old.as_ref().map(|old| old.options.clone()).unwrap_or_default();
        if nodes > NODES_MAX {
            return Err(format!("option --nodes {nodes}: at most {NODES_MAX}"));
        }
        if port.checked_add(nodes - 1).is_none() {
            return Err(format!(
                "option --port {port}: there are no {nodes} ports from there on: take a smaller one"
            ));
        }
        if let Some(old) = old {
            if nodes < old.nodes {
                return Err(format!(
                    "option --nodes {nodes}: the cluster has {} nodes: see one off with ringraft member remove, or take another --dir",
                    old.nodes
                ));
            }
            if port != old.port {
                return Err(format!(
                    "option --port {port}: the cluster's first port is {}: leave the option out, or take another --dir",
                    old.port
                ));
            }
        }
        Ok(Plan { nodes, port, options: wanted.options.clone().unwrap_or(before) })
    }
}

impl Cluster {
    /// The cluster that is there.
    /// Errors: there is none.
    fn open(directory: &Path) -> Result<Cluster, String> {
        match read_plan(directory)? {
            Some(plan) => Cluster::of(directory, plan),
            None => Err(format!(
                "there is no cluster in {}: {} makes one, --dir names another place",
                directory.display(),
                again(directory, "start")
            )),
        }
    }

    /// The one that is there, or a new one.
    fn open_or_plan(directory: &Path, wanted: &Wanted) -> Result<Cluster, String> {
        let old = read_plan(directory)?;
        let plan = Plan::with(old.clone(), wanted)?;
        let cluster = Cluster::of(directory, plan)?;
        if old.as_ref() != Some(&cluster.plan) {
            let text = serde_json::to_string_pretty(&cluster.plan).expect("plain data");
            let path = cluster.directory.join(FILE);
            files::replace(&path, text.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(cluster)
    }

    fn of(directory: &Path, plan: Plan) -> Result<Cluster, String> {
        let directory = fs::canonicalize(directory)
            .map_err(|error| format!("cannot open {}: {error}", directory.display()))?;
        let mut cluster = Cluster { directory, plan, password: String::new() };
        cluster.password = cluster.settings()?.requirepass;
        Ok(cluster)
    }

    /// The settings of a node: are its options in order?
    fn settings(&self) -> Result<Settings, String> {
        for option in &self.plan.options {
            let name = option.split('=').next().unwrap_or_default();
            if ["--dir", "--data", "--port", "--join", "--advertise", "-p"].contains(&name) {
                return Err(format!(
                    "option {name} after --: dev-cluster gives it to each node itself"
                ));
            }
        }
        let words = [OsString::from("ringraft")].into_iter().chain(self.arguments(1, &[]));
        let settings = match options::read(words) {
            Ok(Request::Serve(settings)) => settings,
            Ok(_) => return Err("what follows -- are not options of a server".into()),
            Err(line) => return Err(format!("after --: {line}")),
        };
        match settings.mode {
            Mode::Store => Ok(*settings),
            Mode::Cache => {
                Err("after --: --mode cache keeps nothing on disk, so it has no cluster".into())
            }
        }
    }

    fn nodes(&self) -> impl Iterator<Item = u16> {
        1..=self.plan.nodes
    }

    fn home(&self, node: u16) -> PathBuf {
        self.directory.join(format!("node-{node}"))
    }

    fn data(&self, node: u16) -> PathBuf {
        self.home(node).join("data")
    }

    fn log(&self, node: u16) -> PathBuf {
        self.home(node).join("log")
    }

    fn target(&self, node: u16) -> Target {
        let (port, password) = (self.plan.port + node - 1, self.password.clone());
        Target { host: "127.0.0.1".into(), port, password, ..Target::default() }
    }

    /// What a node is started with.
    fn arguments(&self, node: u16, join: &[u16]) -> Vec<OsString> {
        let target = self.target(node);
        let mut words: Vec<OsString> = vec!["--port".into(), target.port.to_string().into()];
        words.extend(["--dir".into(), self.data(node).into()]);
        let seeds: Vec<String> = join.iter().map(|seed| self.target(*seed).to_string()).collect();
        if !seeds.is_empty() {
            words.extend(["--join".into(), seeds.join(",").into()]);
        }
        words.extend(self.plan.options.iter().map(OsString::from));
        words
    }

    /// The process of a node: the one whose pid was written down here, or by the server itself.
    fn process(&self, node: u16) -> Option<Process> {
        let data = self.data(node);
        let is_it = |words: &[&[u8]]| {
            let data = data.as_os_str().as_encoded_bytes();
            words.windows(2).any(|pair| pair == [&b"--dir"[..], data])
        };
        [self.home(node).join("pid"), data.join("lock")].iter().find_map(|file| {
            let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
            Process::find(pid, is_it)
        })
    }

    /// Has a node been in the cluster?
    fn has_data(&self, node: u16) -> bool {
        self.data(node).join("cluster.json").exists()
    }

    fn start(&self) -> Result<(), String> {
        let down: Vec<u16> = self.nodes().filter(|node| self.process(*node).is_none()).collect();
        for node in &down {
            self.check_port(*node)?;
        }
        // Those that were there before need each other.
        let mut started = Vec::new();
        let (known, mut new): (Vec<u16>, Vec<u16>) =
            down.iter().partition(|node| self.has_data(**node));
        for node in known {
            started.push(self.launch(node, &[])?);
        }
        // Whoever founds while there is a cluster would be another one: all others are told of it.
        let mut seeds: Vec<u16> = self.nodes().filter(|node| !new.contains(node)).collect();
        if seeds.is_empty() {
            let founder = new.remove(0);
            started.push(self.launch(founder, &[])?);
            seeds.push(founder);
            self.await_answer(&mut started)?;
        }
        for node in new {
            started.push(self.launch(node, &seeds)?);
            seeds.push(node);
            self.await_answer(&mut started)?;
        }
        let leader = self.await_whole(&mut started)?;
        let lines = self.nodes().map(|node| format!("{}\n", self.target(node)));
        print(&lines.collect::<String>());
        tell(&format!(
            "{} nodes are ready, {leader} leads; {}",
            self.plan.nodes,
            match down.len() {
                0 => "all of them ran already".to_string(),
                count => format!("started: {count}"),
            }
        ));
        Ok(())
    }

    /// Another server on a node's port would answer for it.
    fn check_port(&self, node: u16) -> Result<(), String> {
        let target = self.target(node);
        match TcpListener::bind((target.host.as_str(), target.port)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(format!(
                "port {} of node {node} is taken by another process: end that, or begin another cluster with --port and --dir",
                target.port
            )),
            Err(error) => Err(format!("cannot listen on {target} for node {node}: {error}")),
        }
    }

    fn launch(&self, node: u16, join: &[u16]) -> Result<(u16, Child), String> {
        let home = self.home(node);
        let failed = |doing: &str, error: io::Error| {
            format!("cannot {doing} node {node} in {}: {error}", home.display())
        };
        fs::create_dir_all(&home).map_err(|error| failed("make", error))?;
        let program = std::env::current_exe().map_err(|error| failed("start", error))?;
        let child = process::start(&program, &self.arguments(node, join), &self.log(node))
            .map_err(|error| failed("start", error))?;
        let pid = format!("{}\n", child.id());
        files::replace(&home.join("pid"), pid.as_bytes())
            .map_err(|error| failed("write down the pid of", error))?;
        Ok((node, child))
    }

    /// Waits until the node that was started last answers.
    fn await_answer(&self, started: &mut [(u16, Child)]) -> Result<(), String> {
        let last = started.last().map_or(1, |(node, _)| *node);
        self.eventually(started, || self.answers(last).map_err(|cause| (last, cause)))
    }

    /// Waits until all answer, and each knows all of them as voters and who leads. Returns that
    /// one.
    fn await_whole(&self, started: &mut [(u16, Child)]) -> Result<String, String> {
        self.eventually(started, || {
            let mut leader = String::new();
            for node in self.nodes() {
                self.answers(node).map_err(|cause| (node, cause))?;
                let listed = self.list(node).map_err(|cause| (node, cause))?;
                leader = self.is_whole(&listed).map_err(|cause| (node, cause))?;
            }
            Ok(leader)
        })
    }

    fn answers(&self, node: u16) -> Result<(), String> {
        let mut client = Client::connect_within(&self.target(node), PATIENCE)?;
        match client.ask_plainly(&["PING"]).map_err(|error| failed(&error))? {
            Answer::Simple(text) if text == "PONG" => Ok(()),
            Answer::Error(text) => Err(format!("it answers {text}")),
            _ => Err("what answers is no ringraft".into()),
        }
    }

    fn list(&self, node: u16) -> Result<Vec<Member>, String> {
        let mut client = Client::connect_within(&self.target(node), PATIENCE)?;
        match client.ask_plainly(&["MEMBER", "LIST"]).map_err(|error| failed(&error))? {
            Answer::Bulk(text) => members(&String::from_utf8_lossy(&text))
                .ok_or_else(|| "what answers is no ringraft".into()),
            Answer::Error(text) => Err(format!("it answers {text}")),
            _ => Err("what answers is no ringraft".into()),
        }
    }

    /// Who leads, if a list has all nodes, as voters.
    fn is_whole(&self, listed: &[Member]) -> Result<String, String> {
        for node in self.nodes() {
            let address = self.target(node).to_string();
            if !listed.iter().any(|member| member.address == address) {
                return Err(format!("node {node} at {address} is not in its list of members"));
            }
        }
        let voters = listed.iter().filter(|member| member.votes).count();
        let wanted = meta_seats(listed.len());
        if voters < wanted {
            return Err(format!("it knows {voters} voters of {wanted}"));
        }
        let leader = listed.iter().find(|member| member.leads);
        leader.map(|member| member.address.clone()).ok_or_else(|| "it knows no leader".into())
    }

    /// Looks again and again. An error names the node that it is about.
    fn eventually<T>(
        &self,
        started: &mut [(u16, Child)],
        look: impl Fn() -> Result<T, (u16, String)>,
    ) -> Result<T, String> {
        let begun = Instant::now();
        loop {
            let (node, cause) = match look() {
                Ok(found) => return Ok(found),
                Err(missing) => missing,
            };
            for (node, child) in started.iter_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    let said = last_line(&self.log(*node));
                    return Err(format!(
                        "node {node} has ended ({status}): {said} (all of it: {}; the other nodes run on)",
                        self.log(*node).display()
                    ));
                }
            }
            if begun.elapsed() >= START_PATIENCE {
                return Err(format!(
                    "node {node} at {} is not ready after {} s: {cause}: {} says more; the nodes run on: wait, and ask {}, or end them with {}",
                    self.target(node),
                    START_PATIENCE.as_secs(),
                    self.log(node).display(),
                    again(&self.directory, "status"),
                    again(&self.directory, "stop")
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn stop(&self) -> Result<(), String> {
        let running: Vec<(u16, Process)> =
            self.nodes().filter_map(|node| Some((node, self.process(node)?))).collect();
        for (node, process) in &running {
            process.end().map_err(|error| cannot_end(*node, process, &error))?;
        }
        let begun = Instant::now();
        let mut left = Vec::new();
        for (node, process) in &running {
            if !process.has_ended_within(STOP_PATIENCE.saturating_sub(begun.elapsed())) {
                left.push(format!("node {node} (process {})", process.pid));
            }
        }
        if !left.is_empty() {
            return Err(format!(
                "{} has not ended within {} s: {} ends it at once, and what was acknowledged stays",
                left.join(", "),
                STOP_PATIENCE.as_secs(),
                again(&self.directory, "kill N")
            ));
        }
        tell(&match running.len() {
            0 => "no node ran".to_string(),
            count => format!("stopped: {count}; the data stays in {}", self.directory.display()),
        });
        Ok(())
    }

    fn kill(&self, node: u16) -> Result<(), String> {
        if node > self.plan.nodes {
            return Err(format!("there is no node {node}: the cluster has {}", self.plan.nodes));
        }
        let process = self.process(node).ok_or_else(|| {
            format!("node {node} does not run: {} starts it", again(&self.directory, "start"))
        })?;
        process.kill().map_err(|error| cannot_end(node, &process, &error))?;
        if !process.has_ended_within(STOP_PATIENCE) {
            return Err(format!(
                "node {node} (process {}) is still there {} s after SIGKILL: the kernel holds it, its log and dmesg may say why",
                process.pid,
                STOP_PATIENCE.as_secs()
            ));
        }
        tell(&format!("node {node} (process {}) is killed", process.pid));
        Ok(())
    }

    fn show(&self) -> Result<State, String> {
        let running: Vec<(u16, Option<Process>)> =
            self.nodes().map(|node| (node, self.process(node))).collect();
        let pictures = running.iter().filter(|(_, process)| process.is_some());
        let picture = pictures.map(|(node, _)| Picture::take(&self.target(*node)));
        // The first one that tells; if none does, why the first one does not.
        let picture = picture.reduce(|one, other| one.or_else(|cause| other.map_err(|_| cause)));
        let head = ["node", "address", "process", "state", "behind"].map(String::from).to_vec();
        let rows = running.iter().map(|(node, process)| {
            let address = self.target(*node).to_string();
            let known = picture.as_ref().and_then(|picture| picture.as_ref().ok());
            let found = known.and_then(|picture| {
                let node = picture.nodes.iter().find(|node| node.member.address == address)?;
                Some((status::role(picture, node), node.behind))
            });
            let state = match (process, found) {
                (None, _) => "down",
                (Some(_), Some((role, _))) => role,
                (Some(_), None) => "starting",
            };
            let pid = process.as_ref().map_or("-".into(), |process| process.pid.to_string());
            let behind = found.and_then(|(_, behind)| behind);
            let behind = behind.map_or("-".into(), |entries| entries.to_string());
            vec![node.to_string(), address, pid, state.to_string(), behind]
        });
        let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
        print(&format!("{}\n", table(&rows)));
        let down = running.iter().filter(|(_, process)| process.is_none()).count();
        if down > 0 {
            let start = again(&self.directory, "start");
            print(&format!("wrong: down: {down}: {start} starts what is down\n"));
        }
        match picture {
            None => Ok(State::Wrong),
            Some(Err(line)) => Err(line),
            Some(Ok(picture)) => {
                let judgement = status::judge(&picture);
                print(&judgement.lines());
                Ok(if down > 0 { State::Wrong } else { judgement.state() })
            }
        }
    }
}

fn read_plan(directory: &Path) -> Result<Option<Plan>, String> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            format!(
                "{} is damaged ({error}): take another --dir, or remove this one",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn cannot_end(node: u16, process: &Process, error: &io::Error) -> String {
    format!("cannot end node {node} (process {}): {error}: whose is it?", process.pid)
}

/// The last line that a node has logged, without its time.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    last.strip_prefix("ringraft: ").unwrap_or(last).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u16, port: u16, options: &[&str]) -> Plan {
        Plan { nodes, port, options: options.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn what_is_not_said_is_as_before() {
        let nothing = Wanted::default();
        assert_eq!(Plan::with(None, &nothing), Ok(plan(3, 7001, &[])));
        let old = plan(3, 8001, &["--fsync", "no"]);
        assert_eq!(Plan::with(Some(old.clone()), &nothing), Ok(old.clone()));
        let more = Wanted { nodes: Some(5), port: Some(8001), options: Some(Vec::new()) };
        assert_eq!(Plan::with(Some(old.clone()), &more), Ok(plan(5, 8001, &[])));
        for (nodes, port, cause) in [
            (Some(2), None, "option --nodes 2: the cluster has 3 nodes: see one off"),
            (None, Some(7001), "option --port 7001: the cluster's first port is 8001"),
            (Some(33), None, "option --nodes 33: at most 32"),
        ] {
            let wanted = Wanted { nodes, port, options: None };
            let refused = Plan::with(Some(old.clone()), &wanted).expect_err(cause);
            assert!(refused.starts_with(cause), "{refused}");
        }
        let last = Wanted { port: Some(65534), ..Wanted::default() };
        let refused = Plan::with(None, &last).expect_err("two ports are left");
        assert!(refused.starts_with("option --port 65534: there are no 3 ports"), "{refused}");
        let last = Wanted { port: Some(65533), ..Wanted::default() };
        assert_eq!(Plan::with(None, &last), Ok(plan(3, 65533, &[])));
    }

    #[test]
    fn options_of_the_server_are_looked_at_before_anything_starts() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let of = |options: &[&str]| Cluster::of(folder.path(), plan(3, 7001, options));
        assert_eq!(of(&["--requirepass", "s"]).map(|cluster| cluster.password), Ok("s".into()));
        for (options, cause) in [
            (&["--prot", "1"][..], "after --: unexpected argument '--prot' found"),
            (&["--port", "1"], "option --port after --: dev-cluster gives it"),
            (&["--dir=x"], "option --dir after --: dev-cluster gives it"),
            (&["--mode", "cache"], "after --: --mode cache keeps nothing on disk"),
            (&["--help"], "what follows -- are not options of a server"),
        ] {
            let refused = of(options).map(|_| ()).expect_err(cause);
            assert!(refused.starts_with(cause), "{refused}");
        }
    }

    #[test]
    fn a_cluster_is_whole_when_all_vote_and_one_leads() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let cluster = Cluster::of(folder.path(), plan(2, 7001, &[])).expect("a plan");
        let member = |id: u64, votes, leads| Member {
            id,
            address: format!("127.0.0.1:{}", 7000 + id),
            votes,
            leads,
        };
        let whole = [member(1, true, true), member(2, true, false)];
        assert_eq!(cluster.is_whole(&whole), Ok("127.0.0.1:7001".into()));
        for (listed, cause) in [
            (vec![member(1, true, true)], "node 2 at 127.0.0.1:7002 is not in its list"),
            (vec![member(1, true, true), member(2, false, false)], "it knows 1 voters of 2"),
            (vec![member(1, true, false), member(2, true, false)], "it knows no leader"),
        ] {
            let missing = cluster.is_whole(&listed).expect_err(cause);
            assert!(missing.starts_with(cause), "{missing}");
        }
    }

    #[test]
    fn a_pid_of_another_process_is_no_node() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let cluster = Cluster::of(folder.path(), plan(1, 7001, &[])).expect("a plan");
        fs::create_dir_all(cluster.home(1)).expect("writable");
        let pid = cluster.home(1).join("pid");
        for text in [std::process::id().to_string(), "x".into(), String::new(), "-1".into()] {
            fs::write(&pid, text).expect("writable");
            assert!(cluster.process(1).is_none());
            let refused = cluster.kill(1).expect_err("it does not run");
            assert!(refused.starts_with("node 1 does not run"), "{refused}");
        }
        assert!(cluster.kill(2).is_err_and(|cause| cause.starts_with("there is no node 2")));
    }
}
