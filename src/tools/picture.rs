//! What the nodes of a cluster say of it: one is asked for all of them, and then each is asked for
//! itself.
//!
//! Nothing here judges; see [`super::status`].

use super::PATIENCE;
use crate::client::{Answer, Client, Target, failed};
use std::collections::BTreeMap;

/// A line of MEMBER LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the cluster.
    pub id: u64,
    /// Where it is reached.
    pub address: String,
    /// Does it vote?
    pub votes: bool,
    /// Does it lead?
    pub leads: bool,
}

/// What INFO replication says of the node that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// Does it lead?
    pub leads: bool,
    /// Who leads, if it knows.
    pub leader: Option<String>,
    /// How many entries it has applied.
    pub offset: u64,
    /// If it leads: those that are connected, and how many entries they have.
    pub followers: Vec<(String, u64)>,
}

/// A node as the one that was asked sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is the one that was asked.
    Itself,
    /// They are connected.
    Up,
    /// They are not.
    Down,
}

/// What comes of asking a node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direct {
    /// Its own view.
    Answers(Replication),
    /// It lives, but tells this tool nothing: its error.
    Refuses(String),
    /// This tool does not reach it: why.
    Silent(String),
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As the node that was asked lists it.
    pub member: Member,
    /// Whether that one is connected with it.
    pub seen: Seen,
    /// What it says itself.
    pub direct: Direct,
    /// How many entries of the leader's it lacks; nothing when nobody knows.
    pub behind: Option<u64>,
}

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// In the order of their numbers.
    pub nodes: Vec<Node>,
}

impl Picture {
    /// Asks a node, and then all that it names, at the same time.
    /// Errors: the first one does not answer, or is no node of this kind; one line that says what
    /// to do.
    pub fn take(target: &Target) -> Result<Picture, String> {
        let mut client = Client::connect_within(target, PATIENCE).map_err(|line| {
            let line = advice(&line).map_or(line.clone(), |advice| format!("{line}: {advice}"));
            match line.starts_with("cannot connect") {
                true => format!("{line}: is a node running there? -a HOST:PORT names another one"),
                false => line,
            }
        })?;
        let mut text = |words: &[&str]| match client.ask_plainly(words) {
            Ok(Answer::Bulk(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(Answer::Error(error)) => Err(match advice(&error) {
                Some(advice) => format!("{target} answers {error}: {advice}"),
                None => format!("{target} answers {error}"),
            }),
            Ok(_) => Err(strange(target)),
            Err(error) => Err(format!("{target}: {}", failed(&error))),
        };
        let listed = members(&text(&["MEMBER", "LIST"])?).ok_or_else(|| strange(target))?;
        let links = reached(&text(&["CLUSTER", "NODES"])?);
        let own = replication(&text(&["INFO", "replication"])?);
        let seen = |id: u64| match links.get(&id) {
            Some((_, true)) => Seen::Itself,
            Some((true, _)) => Seen::Up,
            _ => Seen::Down,
        };
        let direct: Vec<Direct> = std::thread::scope(|scope| {
            let asking: Vec<_> = listed
                .iter()
                .map(|member| match seen(member.id) {
                    Seen::Itself => None,
                    _ => Some(scope.spawn(|| ask_itself(&member.address, target))),
                })
                .collect();
            let answers = asking.into_iter().map(|asked| match asked {
                Some(thread) => thread.join().expect("it does not panic"),
                None => Direct::Answers(own.clone()),
            });
            answers.collect()
        });
        let nodes = listed.into_iter().zip(direct).map(|(member, direct)| {
            let seen = seen(member.id);
            Node { member, seen, direct, behind: None }
        });
        let mut picture = Picture { nodes: nodes.collect() };
        picture.measure();
        Ok(picture)
    }

    /// The node that leads, as the one that was asked knows.
    pub fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.member.leads)
    }

    /// The node that was asked.
    pub fn asked(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.seen == Seen::Itself)
    }

    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.member.votes)
    }

    /// Finds out by the leader's words who lacks how much.
    pub fn measure(&mut self) {
        let Some(Direct::Answers(leader)) = self.leader().map(|node| node.direct.clone()) else {
            return;
        };
        for node in self.nodes.iter_mut().filter(|node| !node.member.leads) {
            let has = leader.followers.iter().find(|(address, _)| *address == node.member.address);
            node.behind = has.map(|(_, has)| leader.offset.saturating_sub(*has));
        }
    }
}

fn strange(target: &Target) -> String {
    format!("what answers at {target} is no ringraft, or one of another version")
}

/// What to do about an error, if there is something to do.
fn advice(error: &str) -> Option<&'static str> {
    let has = |word: &str| error.contains(word);
    if has("NOAUTH") {
        Some("--pass PASSWORD, or REDISCLI_AUTH in the environment")
    } else if has("WRONGPASS") {
        Some("see --pass and --user")
    } else if has("NOPERM") {
        Some("that user may not ask for it, --user names another")
    } else if has("LOADING") {
        Some("it is starting, ask again")
    } else if has("unknown command") {
        Some("it is no ringraft, or an older one")
    } else {
        None
    }
}

/// Asks a node for its own view, with the password of the one that was asked first.
fn ask_itself(address: &str, first: &Target) -> Direct {
    let target = match Target::parse(address) {
        Ok(target) => Target { host: target.host, port: target.port, ..first.clone() },
        Err(cause) => return Direct::Silent(cause),
    };
    let mut client = match Client::connect_within(&target, PATIENCE) {
        Ok(client) => client,
        Err(line) if line.starts_with("the server answers") => return Direct::Refuses(line),
        Err(line) => return Direct::Silent(line),
    };
    match client.ask_plainly(&["INFO", "replication"]) {
        Ok(Answer::Bulk(text)) => Direct::Answers(replication(&String::from_utf8_lossy(&text))),
        Ok(Answer::Error(error)) => Direct::Refuses(format!("the server answers {error}")),
        Ok(_) => Direct::Silent(strange(&target)),
        Err(error) => Direct::Silent(failed(&error)),
    }
}

/// Reads the reply to MEMBER LIST. Nothing when a line is none of it.
pub fn members(text: &str) -> Option<Vec<Member>> {
    let member = |line: &str| {
        let mut values = BTreeMap::new();
        for word in line.split_ascii_whitespace() {
            let (name, value) = word.split_once('=')?;
            values.insert(name, value);
        }
        Some(Member {
            id: values.get("id")?.parse().ok()?,
            address: values.get("address")?.to_string(),
            votes: *values.get("suffrage")? == "0",
            leads: values.get("isLeader")?.parse().ok()?,
        })
    };
    let mut members: Vec<Member> = text.lines().map(member).collect::<Option<_>>()?;
    members.sort_by_key(|member| member.id);
    (!members.is_empty()).then_some(members)
}

/// Reads the reply to CLUSTER NODES: is the node connected, and is it the one that was asked?
fn reached(text: &str) -> BTreeMap<u64, (bool, bool)> {
    let node = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // An id is the cluster's in 32 digits, and the node's in 8.
        let id = u64::from_str_radix(words.first()?.get(32..)?, 16).ok()?;
        let is_own = words.get(2)?.split(',').any(|flag| flag == "myself");
        Some((id, (*words.get(7)? == "connected", is_own)))
    };
    text.lines().filter_map(node).collect()
}

/// Reads the reply to INFO replication.
fn replication(text: &str) -> Replication {
    let mut read = Replication::default();
    let (mut host, mut port) = ("?", "0");
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name {
            "role" => read.leads = value == "master",
            "master_host" => host = value,
            "master_port" => port = value,
            "master_repl_offset" => read.offset = value.parse().unwrap_or(0),
            _ if name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok()) => {
                read.followers.extend(follower(value));
            }
            _ => {}
        }
    }
    read.leader = (host != "?").then(|| address(host, port));
    read
}

/// `ip=127.0.0.1,port=7002,state=online,offset=8,lag=0`
fn follower(value: &str) -> Option<(String, u64)> {
    let field = |wanted: &str| {
        let mut fields = value.split(',').filter_map(|field| field.split_once('='));
        fields.find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    Some((address(field("ip")?, field("port")?), field("offset")?.parse().ok()?))
}

fn address(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_members() {
        let text = "id=2 address=[::1]:7002 suffrage=1 isLeader=false\nid=1 address=127.0.0.1:7001 suffrage=0 isLeader=true";
        let member = |id, address: &str, votes, leads| {
            let address = address.to_string();
            Member { id, address, votes, leads }
        };
        let read = [member(1, "127.0.0.1:7001", true, true), member(2, "[::1]:7002", false, false)];
        assert_eq!(members(text), Some(read.to_vec()));
        for text in ["", "OK", "id=x address=a suffrage=0 isLeader=true", "id=1 address=a"] {
            assert_eq!(members(text), None, "{text}");
        }
    }

    #[test]
    fn who_is_reached() {
        let id = |node: u32| format!("e7bb8d48619a40c9c5eef5f9df75d8b6{node:08x}");
        let text = format!(
            "{} 127.0.0.1:1@1 master - 0 0 1 connected 0-16383\n{} 127.0.0.1:2@2 myself,slave {} 0 0 1 connected\n{} 127.0.0.1:3@3 slave - 0 0 1 disconnected\nnonsense\n",
            id(1),
            id(11),
            id(1),
            id(3)
        );
        let read = BTreeMap::from([(1, (true, false)), (3, (false, false)), (11, (true, true))]);
        assert_eq!(reached(&text), read);
    }

    #[test]
    fn what_a_node_says_of_its_replicas() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                    slave0:ip=127.0.0.1,port=7002,state=online,offset=8,lag=0\r\n\
                    slave1:ip=::1,port=7003,state=online,offset=5,lag=1\r\nmaster_repl_offset:9\r\n";
        let followers = vec![("127.0.0.1:7002".to_string(), 8), ("[::1]:7003".to_string(), 5)];
        let read = Replication { leads: true, leader: None, offset: 9, followers };
        assert_eq!(replication(text), read);
        let text = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nslave_repl_offset:4\r\n\
                    slave_priority:100\r\nmaster_repl_offset:4\r\n";
        let leader = Some("10.0.0.1:6379".to_string());
        let read = Replication { leads: false, leader, offset: 4, followers: Vec::new() };
        assert_eq!(replication(text), read);
        let text = "role:slave\r\nmaster_host:?\r\nmaster_port:0\r\n";
        assert_eq!(replication(text).leader, None);
    }
}
