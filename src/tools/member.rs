//! `ringraft member add|remove|list`: the members of a cluster, by the words of MEMBER.

use super::picture::members;
use super::{DECISION_PATIENCE, State, print, tell};
use crate::client::{Answer, Client, Target, failed};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// How the node at this address becomes one: it joins by itself.
    Add(String),
    /// See the node with this number or address off.
    Remove(String),
    /// The same, whatever speaks against it.
    RemoveAnyway(String),
    /// A line for each.
    List,
}

impl Act {
    /// The request, with the empty words that kvsctl sends.
    pub fn words(&self) -> Vec<&str> {
        match self {
            Act::Add(address) => vec!["member", "add", address, address],
            Act::Remove(node) => vec!["member", "remove", node, ""],
            Act::RemoveAnyway(node) => vec!["member", "remove", node, "force"],
            Act::List => vec!["member", "list", "", ""],
        }
    }
}

/// Asks, and prints the reply.
/// Errors: the node does not answer, or answers with an error.
pub fn run(target: &Target, act: &Act) -> Result<State, String> {
    let mut client = Client::connect_within(target, DECISION_PATIENCE)?;
    let reply = client.ask_plainly(&act.words()).map_err(|error| failed(&error))?;
    match reply {
        Answer::Simple(text) => print(&format!("{text}\n")),
        Answer::Bulk(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            if members(&text).is_none() {
                return Err(format!("what answers at {target} is no ringraft"));
            }
            print(&format!("{text}\n"));
        }
        Answer::Error(text) => return Err(explained(target, act, &text)),
        _ => return Err(format!("what answers at {target} is no ringraft")),
    }
    if let Act::Remove(node) | Act::RemoveAnyway(node) = act {
        tell(&format!(
            "node {node} leaves when others have what it had, and ends then: ringraft member list -a {target} shows it until it has left"
        ));
    }
    Ok(State::Well)
}

/// The server's error without its code, and what to do.
fn explained(target: &Target, act: &Act, error: &str) -> String {
    let text = error.strip_prefix("ERR ").unwrap_or(error);
    match (act, text) {
        (_, "leader not known") => {
            format!("{text}: ringraft cluster status -a {target} says what is wrong")
        }
        (Act::Remove(node) | Act::RemoveAnyway(node), "peer is unknown") => {
            format!("no node has the number or address {node}: ringraft member list -a {target}")
        }
        (_, text) if text.starts_with("NOAUTH") => {
            format!("{text} --pass PASSWORD, or REDISCLI_AUTH in the environment")
        }
        _ => text.replace("; FORCE removes", "; --force removes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do_here() {
        let target = Target::parse("7001").expect("a port");
        let node = "3".to_string();
        for (act, error, said) in [
            (
                Act::List,
                "ERR leader not known",
                "leader not known: ringraft cluster status -a 127.0.0.1:7001 says what is wrong",
            ),
            (
                Act::Remove(node.clone()),
                "ERR peer is unknown",
                "no node has the number or address 3: ringraft member list -a 127.0.0.1:7001",
            ),
            (
                Act::Remove(node),
                "ERR so it is; FORCE removes it all the same",
                "so it is; --force removes it all the same",
            ),
            (
                Act::List,
                "NOAUTH Authentication required.",
                "NOAUTH Authentication required. --pass PASSWORD, or REDISCLI_AUTH in the environment",
            ),
        ] {
            assert_eq!(explained(&target, &act, error), said);
        }
    }

    #[test]
    fn requests_have_four_words() {
        let node = "3".to_string();
        for (act, words) in [
            (Act::List, ["member", "list", "", ""]),
            (Act::Remove(node.clone()), ["member", "remove", "3", ""]),
            (Act::RemoveAnyway(node.clone()), ["member", "remove", "3", "force"]),
            (Act::Add(node), ["member", "add", "3", "3"]),
        ] {
            assert_eq!(act.words(), words);
        }
    }
}
