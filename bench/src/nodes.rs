//! A cluster of ringraft nodes on this machine: the first founds it, the others join.

use std::time::{Duration, Instant};

use crate::arm::{Arm, ServerCommand};
use crate::cpus::Cpus;

/// How long joins, elections and catching up may take.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a node that leads says of itself.
const LEADER: &str = "master";

/// The nodes, in the order in which they came.
pub struct Nodes {
    /// Their processes.
    pub arms: Vec<Arm>,
    command: ServerCommand,
    cpus: Cpus,
}

impl Nodes {
    /// Starts so many with `command` on `cpus`, and waits until each has a vote.
    pub fn start(command: &ServerCommand, count: usize, cpus: &Cpus) -> Result<Nodes, String> {
        let first = Arm::start(command, Some(cpus))?;
        let mut nodes = Nodes { arms: vec![first], command: command.clone(), cpus: cpus.clone() };
        for _ in 1..count {
            nodes.join()?;
        }
        nodes.wait_for_votes()?;
        Ok(nodes)
    }

    /// Starts one more; it joins by itself.
    pub fn join(&mut self) -> Result<(), String> {
        let seeds = self.arms[0].address().to_string();
        let command = self.command.with(&["--join", &seeds]);
        self.arms.push(Arm::start(&command, Some(&self.cpus))?);
        Ok(())
    }

    /// Until all nodes are members that vote.
    /// Errors: they do not; what each of them says of it is told.
    pub fn wait_for_votes(&self) -> Result<(), String> {
        let count = self.arms.len();
        let outcome = wait("all nodes vote", || {
            let members = self.arms[0].connect()?.call(&["MEMBER", "list"])?;
            Ok(members.matches("suffrage=0").count() == count)
        });
        outcome.map_err(|error| {
            let says = |arm: &Arm| {
                let mut caller = arm.connect()?;
                let members = caller.call(&["MEMBER", "list"])?;
                Ok(format!("{members}\n{}", caller.call(&["INFO", "replication"])?))
            };
            let said = self.arms.iter().map(|arm| {
                let text = says(arm).unwrap_or_else(|error: String| error);
                format!("\n{} says:\n{}", arm.address(), text.trim_end())
            });
            error + &said.collect::<String>()
        })
    }

    /// The place of the one that leads, waited for.
    pub fn leader(&self) -> Result<usize, String> {
        let mut found = None;
        wait("one node leads", || {
            let leads = |arm: &Arm| {
                let role = arm.connect().and_then(|mut caller| caller.info("replication", "role"));
                role.is_ok_and(|role| role.as_deref() == Some(LEADER))
            };
            found = self.arms.iter().position(leads);
            Ok(found.is_some())
        })?;
        Ok(found.expect("just seen"))
    }

    /// How far the log of the leader goes, and the least that one of the others has of it.
    pub fn progress(&self, leader: usize) -> Result<(u64, u64), String> {
        let text = self.arms[leader].connect()?.call(&["INFO", "replication"])?;
        let field = |line: &str, name: &str| line.split_once(name)?.1.parse::<u64>().ok();
        let end = text.lines().find_map(|line| field(line, "master_repl_offset:"));
        let others = text.lines().filter(|line| line.starts_with("slave")).map(|line| {
            let offset = line.split(',').find_map(|part| field(part, "offset="));
            if line.contains("state=online") { offset.unwrap_or(0) } else { 0 }
        });
        Ok((end.ok_or("INFO replication without an offset")?, others.min().unwrap_or(0)))
    }
}

/// Waits until `holds`; what cannot be asked meanwhile is asked again.
/// Errors: it took too long; the last error of `holds` is named.
pub fn wait(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let begin = Instant::now();
    let mut last = String::new();
    while begin.elapsed() < WAIT_MAX {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = format!(": {error}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(format!("waited {WAIT_MAX:?} until {what}{last}"))
}
