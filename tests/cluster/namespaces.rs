//! Networks that break: between nodes that live, in one direction or both, for long or again and
//! again.

use crate::cluster::Cluster;
use crate::load::{Seen, append, check, ports};
use crate::network::Network;
use crate::support::{Value, eventually};
use std::time::Duration;

/// Three nodes, each in a namespace of its own. The cluster goes first when both are dropped.
struct Scene {
    cluster: Cluster,
    network: Network,
    _secret: tempfile::TempDir,
}

impl Scene {
    fn new() -> Option<Scene> {
        let network = Network::new(3)?;
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "the secret of this test").expect("writable");
        let secret = secret.to_str().expect("a plain path");
        let mut cluster = Cluster::empty();
        let mut seed = String::new();
        for node in 0..3 {
            cluster.add_prepared(&[], |server| {
                let address = network.address(node);
                let common =
                    ["--bind", &address, "--protected-mode", "no", "--cluster-secret", secret];
                let join = ["--join", &seed];
                let joins = join.iter().filter(|_| node > 0);
                let all: Vec<&str> = common.iter().chain(joins).copied().collect();
                server.set_arguments(&all);
                server.set_runner(&["ip", "netns", "exec", &network.space(node)]);
                network.carry(node, server.port());
                if node == 0 {
                    seed = format!("{address}:{}", server.port());
                }
            });
        }
        cluster.settle();
        Some(Scene { cluster, network, _secret: folder })
    }

    /// The node that leads, and the others.
    fn roles(&self) -> (usize, usize, usize) {
        let leader = self.cluster.leader();
        let mut others = (0..3).filter(|node| *node != leader);
        (leader, others.next().expect("three"), others.next().expect("three"))
    }

    fn ports(&self, nodes: &[usize]) -> Vec<u16> {
        ports(&self.cluster, nodes.iter().copied())
    }

    /// So much time passes, as a server that is not asked for anything else measures it.
    fn pass(&self, node: usize, time: Duration) {
        let seconds = time.as_secs_f64().to_string();
        let reply = self.cluster.client(node).call(&["BLPOP", "nobody pushes here", &seconds]);
        assert!(matches!(reply, Value::NullArray) || reply.is_error(), "{reply:?}");
    }

    /// All is whole again, and everything that was acknowledged is there.
    fn check(&self, seen: &[Seen]) {
        self.network.heal_all();
        self.cluster.settle();
        check(&self.cluster, seen);
    }
}

fn in_doubt_at_most(seen: &[Seen], most: usize) {
    for one in seen {
        let allowed = |error: &String| error.starts_with("ERR the outcome is not known");
        assert!(one.errors.len() <= most && one.errors.iter().all(allowed), "{:?}", one.errors);
    }
}

#[test]
fn a_leader_that_is_cut_off_answers_no_read_from_before() {
    let Some(mut scene) = Scene::new() else { return };
    let (leader, one, other) = scene.roles();
    let mut own = scene.cluster.client(leader);
    assert_eq!(own.say("SET key old"), Value::ok());
    let seen = append(&scene.ports(&[one, other]), 2, 100, || {
        scene.network.part(leader, one);
        scene.network.part(leader, other);
        scene.cluster.is_asleep(leader, true);
        assert_ne!(scene.cluster.leader(), leader);
        assert_eq!(scene.cluster.client(one).say("SET key new"), Value::ok());
        // It waits for somebody to lead, and is told in the end that nobody does.
        assert_eq!(own.say("GET key").error(), "ERR leader not known");
        scene.cluster.is_asleep(leader, false);
    });
    in_doubt_at_most(&seen, 1);
    scene.check(&seen);
    assert_eq!(own.say("GET key"), Value::bulk("new"));
}

#[test]
fn what_is_cut_in_one_direction_is_soon_whole_again_or_led_by_another() {
    let Some(scene) = Scene::new() else { return };
    // A leader that nobody hears, one that hears nobody, and a follower of each kind.
    for kind in 0..4 {
        let (leader, one, other) = scene.roles();
        let cuts: &[(usize, usize)] = match kind {
            0 => &[(leader, one), (leader, other)],
            1 => &[(one, leader), (other, leader)],
            2 => &[(one, leader), (one, other)],
            _ => &[(leader, one), (other, one)],
        };
        let asked = if kind < 2 { [one, other] } else { [leader, other] };
        let seen = append(&scene.ports(&asked), 1, 100, || {
            cuts.iter().for_each(|(from, to)| scene.network.cut(*from, *to));
            // The links of the other direction are given up as well.
            eventually("writes go on without it", || {
                let reply = scene.cluster.client(asked[1]).say("SET key value");
                (reply == Value::ok()).then_some(())
            });
            scene.pass(asked[1], Duration::from_secs(2));
        });
        in_doubt_at_most(&seen, 1);
        scene.check(&seen);
    }
}

#[test]
fn of_one_wire_of_three_nobody_notices_anything_as_the_one_leads_whom_all_reach() {
    let Some(scene) = Scene::new() else { return };
    let (leader, cut, other) = scene.roles();
    let term = scene.cluster.term(leader);
    let seen = append(&scene.ports(&[leader, cut, other]), 2, 50, || {
        scene.network.part(leader, cut);
        eventually("the one in the middle leads", || {
            (scene.cluster.servers[other].info("role") == "master").then_some(())
        });
        let fitness = scene.cluster.servers[leader].info("fit_to_lead");
        assert_eq!(fitness, "no: another node reaches more of the others");
        // For all that it was cut off for seconds, it takes requests.
        assert_eq!(scene.cluster.client(cut).say("SET key value"), Value::ok());
        scene.pass(leader, Duration::from_secs(4));
        // Once, and again when the machine stands still for as long as an election waits.
        let risen = scene.cluster.term(other) - term;
        assert!((1..=3).contains(&risen), "handed over {risen} times");
    });
    // What was under way over the wire, the memory of the next leader may have pushed out.
    in_doubt_at_most(&seen, 1);
    scene.check(&seen);
    let risen = scene.cluster.term(other) - term;
    assert!(risen <= 4, "led anew {risen} times");
    eventually("the other one may lead again", || {
        (scene.cluster.servers[leader].info("fit_to_lead") == "yes").then_some(())
    });
}

#[test]
fn wires_that_flap_hold_nobody_up_who_has_a_majority() {
    let Some(scene) = Scene::new() else { return };
    let (leader, flaps, other) = scene.roles();
    let term = scene.cluster.term(leader);
    let seen = append(&scene.ports(&[leader, other]), 2, 50, || {
        for _ in 0..10 {
            scene.network.part(flaps, leader);
            scene.network.part(flaps, other);
            scene.pass(leader, Duration::from_millis(300));
            scene.network.heal_all();
            scene.pass(leader, Duration::from_millis(300));
        }
    });
    assert!(seen.iter().all(|one| one.errors.is_empty()), "{seen:?}");
    scene.check(&seen);
    let risen = scene.cluster.term(leader) - term;
    assert!(risen <= 1, "handed over {risen} times to the one that reaches the third");
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_it_goes_on_when_there_is_one() {
    let Some(scene) = Scene::new() else { return };
    let (leader, one, other) = scene.roles();
    let mut clients: Vec<_> = (0..3).map(|node| scene.cluster.client(node)).collect();
    for (from, to) in [(leader, one), (leader, other), (one, other)] {
        scene.network.part(from, to);
    }
    for client in &mut clients {
        let reply = client.say("SET key value");
        let error = reply.error();
        let is_known =
            error == "ERR leader not known" || error.starts_with("ERR the outcome is not known");
        assert!(is_known, "{error}");
    }
    scene.network.heal_all();
    let seen = append(&scene.ports(&[0, 1, 2]), 1, 20, || {});
    scene.check(&seen);
}
