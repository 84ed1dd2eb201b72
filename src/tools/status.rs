//! `ringraft cluster status`: a cluster on one screen, what is wrong with it, and what to do.

use super::picture::{Direct, Node, Picture, Seen};
use super::{State, print, table};
use crate::client::Target;
use ringraft_shards::meta::meta_seats;

/// From so many nodes on, more of them bring no more votes.
const VOTES_MANY: usize = 5;

/// What is to be said of a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What must be done something about.
    pub wrong: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// Asks, and prints the screen.
/// Errors: the node that is asked does not answer.
pub fn run(target: &Target) -> Result<State, String> {
    let picture = Picture::take(target)?;
    let judgement = judge(&picture);
    print(&screen(&picture, &judgement));
    Ok(judgement.state())
}

impl Judgement {
    /// Is all well?
    pub fn state(&self) -> State {
        match self.wrong.is_empty() {
            true => State::Well,
            false => State::Wrong,
        }
    }

    /// A line for each thing.
    pub fn lines(&self) -> String {
        let wrong = self.wrong.iter().map(|line| format!("wrong: {line}\n"));
        let notes = self.notes.iter().map(|line| format!("note: {line}\n"));
        let mut text: String = wrong.chain(notes).collect();
        if self.wrong.is_empty() {
            text.insert_str(0, "all is well\n");
        }
        text
    }
}

fn screen(picture: &Picture, judgement: &Judgement) -> String {
    let asked = picture.asked().map_or(String::new(), |node| format!(" as {} sees it", name(node)));
    let count = picture.nodes.len();
    let nodes = if count == 1 { "node" } else { "nodes" };
    let head = ["node", "address", "role", "state", "behind"].map(String::from).to_vec();
    let rows = picture.nodes.iter().map(|node| {
        vec![
            node.member.id.to_string(),
            node.member.address.clone(),
            role(picture, node).to_string(),
            if node.seen == Seen::Down { "down" } else { "up" }.to_string(),
            node.behind.map_or("-".to_string(), |entries| entries.to_string()),
        ]
    });
    let rows: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    format!("a cluster of {count} {nodes}{asked}\n\n{}\n{}", table(&rows), judgement.lines())
}

/// What a node is in the cluster.
pub fn role(picture: &Picture, node: &Node) -> &'static str {
    match node.member {
        ref member if member.leads => "leader",
        ref member if member.votes => "voter",
        _ if lacks_voters(picture) => "learner",
        _ => "member",
    }
}

/// Not all who shall vote do.
fn lacks_voters(picture: &Picture) -> bool {
    picture.voters().count() < meta_seats(picture.nodes.len())
}

fn name(node: &Node) -> String {
    format!("node {} at {}", node.member.id, node.member.address)
}

/// Says what is wrong, the worst first.
pub fn judge(picture: &Picture) -> Judgement {
    let mut judgement = Judgement::default();
    judge_leader(picture, &mut judgement);
    judge_nodes(picture, &mut judgement);
    judge_voters(picture, &mut judgement);
    judge_views(picture, &mut judgement);
    judgement
}

/// How many of the voters suffice.
fn majority(picture: &Picture) -> usize {
    picture.voters().count() / 2 + 1
}

fn reached(picture: &Picture) -> usize {
    picture.voters().filter(|node| node.seen != Seen::Down).count()
}

/// Is there one who leads?
fn judge_leader(picture: &Picture, judgement: &mut Judgement) {
    if picture.leader().is_some() {
        return;
    }
    let asked = picture.asked().map_or("the node that was asked".to_string(), name);
    let claims = |node: &&Node| matches!(&node.direct, Direct::Answers(own) if own.leads);
    if let Some(leader) = picture.nodes.iter().find(claims) {
        let leader = name(leader);
        judgement.wrong.push(format!(
            "{asked} knows no leader, but {leader} says that it leads: ask again in a moment; if it stays so, something is between the two"
        ));
        return;
    }
    let (reached, voters, majority) =
        (reached(picture), picture.voters().count(), majority(picture));
    if reached >= majority {
        judgement.wrong.push(format!(
            "no leader, though {reached} of {voters} nodes are reached and a majority is {majority}: they are choosing one, ask again in a moment; \
             if it stays so, their logs say why"
        ));
        return;
    }
    let down = picture.voters().filter(|node| node.seen == Seen::Down).map(name);
    let down = down.collect::<Vec<_>>().join(" or ");
    let lacking = match majority - reached {
        1 => "one more".to_string(),
        more => format!("{more} more"),
    };
    judgement.wrong.push(format!(
        "no leader: {reached} of {voters} nodes reached, and a majority is {majority}: nothing is written until there is {lacking}: start {down}"
    ));
}

/// Is every node there?
fn judge_nodes(picture: &Picture, judgement: &mut Judgement) {
    let asked = picture.asked().map_or("the node that was asked".to_string(), name);
    let of = picture.asked().map_or(String::new(), |node| format!(" -a {}", node.member.address));
    for node in picture.nodes.iter().filter(|node| node.seen == Seen::Down) {
        let (name, id) = (name(node), node.member.id);
        judgement.wrong.push(match &node.direct {
            Direct::Silent(_) => format!(
                "{name} is down: start it with the directory that it had; if that is lost, ringraft member remove {id}{of} and let a new one --join"
            ),
            _ => format!(
                "{asked} does not reach {name}, which answers here: ask again in a moment; if it stays so, is something between the two, has it another \
                 --advertise or --cluster-secret? Their logs say why"
            ),
        });
    }
    let is_down = picture.voters().any(|node| node.seen == Seen::Down);
    if is_down && picture.leader().is_some() && reached(picture) == majority(picture) {
        judgement.wrong.push("until then the cluster stops if one more fails".into());
    }
}

/// Are there as many as are needed?
fn judge_voters(picture: &Picture, judgement: &mut Judgement) {
    let (voters, nodes) = (picture.voters().count(), picture.nodes.len());
    let address = picture.asked().map_or("HOST:PORT", |node| node.member.address.as_str());
    let join = format!("ringraft -p PORT --dir DIR --join {address}");
    if lacks_voters(picture) {
        for node in picture.nodes.iter().filter(|node| !node.member.votes) {
            judgement.wrong.push(format!(
                "{} does not vote: it gets what it lacks before it does, or it leaves; ask again in a moment",
                name(node)
            ));
        }
    } else if voters == 2 {
        judgement.wrong.push(format!(
            "two voters only: the cluster stops when either fails; one more node is needed to survive a failure: {join}"
        ));
    }
    if nodes == 1 {
        judgement.notes.push(format!("one node only: nothing is kept twice; nodes join by {join}"));
    } else if nodes > 2 && nodes.is_multiple_of(2) && nodes < VOTES_MANY {
        judgement.notes.push(format!(
            "{nodes} nodes survive the failure of {}, as {} do: one more node would help",
            (nodes - 2) / 2,
            nodes - 1
        ));
    }
}

/// Do the nodes agree, and does this tool reach them?
fn judge_views(picture: &Picture, judgement: &mut Judgement) {
    let leader = picture.leader().map(|node| node.member.address.as_str());
    for node in picture.nodes.iter().filter(|node| node.seen == Seen::Up) {
        let name = name(node);
        match &node.direct {
            Direct::Silent(cause) | Direct::Refuses(cause) => {
                let lost =
                    if node.member.leads { "; who is behind is not known without it" } else { "" };
                judgement.notes.push(format!("{name} tells this tool nothing: {cause}{lost}"));
            }
            Direct::Answers(own) => {
                let says = match own.leads {
                    true => Some(node.member.address.as_str()),
                    false => own.leader.as_deref(),
                };
                if leader.is_none() || says == leader {
                    continue;
                }
                let says = says
                    .map_or("that nobody leads".into(), |address| format!("that {address} leads"));
                judgement.wrong.push(format!(
                    "{name} says {says}: ask again in a moment; if it stays so, its log says why"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::{Member, Replication};
    use super::*;

    /// Nodes at 10.0.0.N:6379 that say what the first one sees; node 1 is asked, and leads.
    fn cluster(count: u64) -> Picture {
        let address = |id: u64| format!("10.0.0.{id}:6379");
        let followers = (2..=count).map(|id| (address(id), 100 - id)).collect();
        let leading = Replication { leads: true, leader: None, offset: 100, followers };
        let following = Replication { leader: Some(address(1)), offset: 98, ..Default::default() };
        let node = |id: u64| Node {
            member: Member { id, address: address(id), votes: true, leads: id == 1 },
            seen: if id == 1 { Seen::Itself } else { Seen::Up },
            direct: Direct::Answers(if id == 1 { leading.clone() } else { following.clone() }),
            behind: None,
        };
        let mut picture = Picture { nodes: (1..=count).map(node).collect() };
        picture.measure();
        picture
    }

    fn fail(picture: &mut Picture, id: usize) {
        let node = &mut picture.nodes[id - 1];
        (node.seen, node.behind) = (Seen::Down, None);
        node.direct = Direct::Silent("cannot connect".into());
    }

    fn lose_leader(picture: &mut Picture) {
        for node in &mut picture.nodes {
            node.member.leads = false;
            if let Direct::Answers(own) = &mut node.direct {
                (own.leads, own.leader) = (false, None);
            }
        }
    }

    /// What is wrong and what is noted begin so, or have it in them, in this order.
    fn check(picture: &Picture, wrong: &[&str], notes: &[&str]) {
        let judgement = judge(picture);
        for (found, wanted) in [(&judgement.wrong, wrong), (&judgement.notes, notes)] {
            assert_eq!(found.len(), wanted.len(), "{judgement:#?}");
            for (found, wanted) in found.iter().zip(wanted) {
                assert!(found.contains(wanted), "{wanted}: {judgement:#?}");
            }
        }
        assert_eq!(judgement.state() == State::Well, wrong.is_empty());
    }

    #[test]
    fn a_whole_cluster_is_well() {
        let picture = cluster(3);
        check(&picture, &[], &[]);
        let text = "a cluster of 3 nodes as node 1 at 10.0.0.1:6379 sees it\n\n\
                    node  address        role    state  behind\n\
                    \u{20}  1  10.0.0.1:6379  leader  up          -\n\
                    \u{20}  2  10.0.0.2:6379  voter   up          2\n\
                    \u{20}  3  10.0.0.3:6379  voter   up          3\n\nall is well\n";
        assert_eq!(screen(&picture, &judge(&picture)), text);
    }

    #[test]
    fn a_node_that_is_down() {
        let mut picture = cluster(3);
        fail(&mut picture, 3);
        let down = "node 3 at 10.0.0.3:6379 is down: start it with the directory that it had; if that is lost, ringraft member remove 3";
        check(&picture, &[down, "stops if one more fails"], &[]);
        let mut picture = cluster(5);
        fail(&mut picture, 3);
        check(&picture, &[down], &[]);
    }

    #[test]
    fn no_majority() {
        let mut picture = cluster(3);
        fail(&mut picture, 2);
        fail(&mut picture, 3);
        lose_leader(&mut picture);
        let line = "no leader: 1 of 3 nodes reached, and a majority is 2: nothing is written until there is one more: \
                    start node 2 at 10.0.0.2:6379 or node 3 at 10.0.0.3:6379";
        check(&picture, &[line, "node 2 at 10.0.0.2:6379 is down", "node 3"], &[]);
        let mut picture = cluster(3);
        lose_leader(&mut picture);
        check(&picture, &["no leader, though 3 of 3 nodes are reached"], &[]);
    }

    #[test]
    fn a_node_that_is_cut_off_from_the_others() {
        let mut picture = cluster(3);
        lose_leader(&mut picture);
        for id in 2..=3 {
            let leads = id == 2;
            picture.nodes[id - 1].seen = Seen::Down;
            picture.nodes[id - 1].direct =
                Direct::Answers(Replication { leads, ..Default::default() });
        }
        let cut = "node 1 at 10.0.0.1:6379 knows no leader, but node 2 at 10.0.0.2:6379 says that it leads";
        let unreached = "does not reach node 2 at 10.0.0.2:6379, which answers here";
        check(&picture, &[cut, unreached, "does not reach node 3"], &[]);
    }

    #[test]
    fn too_few_and_too_many() {
        check(
            &cluster(2),
            &["two voters only: the cluster stops when either fails; one more"],
            &[],
        );
        check(&cluster(1), &[], &["one node only: nothing is kept twice; nodes join by ringraft"]);
        let mut picture = cluster(4);
        picture.nodes[3].member.votes = false;
        check(&picture, &[], &["4 nodes survive the failure of 1, as 3 do"]);
        let mut picture = cluster(3);
        picture.nodes[2].member.votes = false;
        check(&picture, &["node 3 at 10.0.0.3:6379 does not vote"], &[]);
        assert_eq!(role(&picture, &picture.nodes[2]), "learner");
        // More than vote.
        let mut picture = cluster(7);
        for node in &mut picture.nodes[5..] {
            node.member.votes = false;
        }
        check(&picture, &[], &[]);
        assert_eq!(role(&picture, &picture.nodes[6]), "member");
    }

    #[test]
    fn views_that_differ() {
        let mut picture = cluster(3);
        let other = Some("10.0.0.3:6379".to_string());
        picture.nodes[1].direct =
            Direct::Answers(Replication { leader: other, ..Default::default() });
        check(&picture, &["node 2 at 10.0.0.2:6379 says that 10.0.0.3:6379 leads"], &[]);
        picture.nodes[1].direct = Direct::Refuses("the server answers NOAUTH".into());
        check(&picture, &[], &["node 2 at 10.0.0.2:6379 tells this tool nothing"]);
        // The one that leads is not reached from here.
        let mut picture = cluster(3);
        (picture.nodes[0].seen, picture.nodes[1].seen) = (Seen::Up, Seen::Itself);
        picture.nodes[0].direct = Direct::Silent("no answer in time".into());
        check(&picture, &[], &["who is behind is not known without it"]);
    }
}
