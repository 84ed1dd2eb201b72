//! Clients of Redis Cluster against this node: they learn that it has every slot, and are never
//! sent elsewhere.

use crate::support::client::encode;
use crate::support::{Server, Value};
use ringraft_shards::slot::redis_slot;
use std::collections::BTreeMap;

/// All keys of a slot, and no others, whatever shard has them; after a restart, too.
#[test]
fn the_keys_of_a_slot() {
    let mut server = Server::start(&["--slots", "redis", "--shards", "3"]);
    let mut client = server.client();
    let mut slots: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    let mut bytes = Vec::new();
    for number in 0..1500 {
        // Some slots have many keys.
        let key = match number % 3 {
            0 => format!("{{tag{}}}:{number}", number % 10),
            _ => format!("key:{number}"),
        };
        bytes.extend(encode(&["SET", &key, "x"]));
        slots.entry(redis_slot(key.as_bytes())).or_default().push(key);
    }
    client.pipeline(&bytes, 1500);
    for restarted in [false, true] {
        if restarted {
            server.restart();
            client = server.client();
        }
        for (slot, keys) in &mut slots {
            let slot = slot.to_string();
            let count = client.call(&["CLUSTER", "COUNTKEYSINSLOT", &slot]);
            assert_eq!(count, Value::Integer(keys.len() as i64), "slot {slot}");
            let found = client.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100000"]);
            let mut found: Vec<String> = found.elements().iter().map(Value::text).collect();
            found.sort();
            keys.sort();
            assert_eq!(found, *keys, "slot {slot}");
            let some = client.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "3"]);
            assert_eq!(some.elements().len(), keys.len().min(3));
        }
    }
    let empty = (0..16384).find(|slot| !slots.contains_key(slot)).expect("most are empty");
    let empty = empty.to_string();
    assert_eq!(client.call(&["CLUSTER", "COUNTKEYSINSLOT", &empty]), Value::Integer(0));
    assert_eq!(client.call(&["CLUSTER", "GETKEYSINSLOT", &empty, "5"]), Value::Array(vec![]));
    for (request, error) in [
        ("CLUSTER COUNTKEYSINSLOT 16384", "ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT -1", "ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT x", "ERR value is not an integer or out of range"),
        ("CLUSTER GETKEYSINSLOT 0 -1", "ERR Invalid slot or number of keys"),
        ("CLUSTER GETKEYSINSLOT 16384 1", "ERR Invalid slot or number of keys"),
        ("CLUSTER REPLICAS nobody", "ERR Unknown node nobody"),
        ("CLUSTER MEET 127.0.0.1 1", "ERR unknown subcommand 'MEET'. Try CLUSTER HELP."),
    ] {
        assert_eq!(client.say(request), Value::Error(error.into()), "{request}");
    }
}

/// With the slots of Codis the node says so instead of walking all keys for the few of a slot.
#[test]
fn keys_of_a_slot_need_slots_of_that_kind() {
    let server = Server::start(&["--shards", "2"]);
    let mut client = server.client();
    assert_eq!(client.say("CLUSTER KEYSLOT {user1000}.following"), Value::Integer(3443));
    let Value::Error(refused) = client.say("CLUSTER COUNTKEYSINSLOT 1") else { panic!("an error") };
    assert!(refused.contains("created without --slots redis"), "{refused}");
}

/// What the replies say of this node agrees: id, address, slots, in both protocols.
#[test]
fn one_node_with_every_slot() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let port = i64::from(server.port());
    let id = client.say("CLUSTER MYID").text();
    assert_eq!(id.len(), 40);
    let node = format!("{id} 127.0.0.1:{port}@{port} myself,master - 0 0 1 connected 0-16383\n");
    assert_eq!(client.say("CLUSTER NODES").text(), node);
    let slots = client.say("CLUSTER SLOTS");
    let range = slots.elements()[0].elements();
    assert_eq!((&range[0], &range[1]), (&Value::Integer(0), &Value::Integer(16383)));
    assert_eq!(range[2].elements()[0], Value::bulk("127.0.0.1"));
    assert_eq!(range[2].elements()[1], Value::Integer(port));
    assert_eq!(range[2].elements()[2], Value::bulk(&id));
    assert!(client.say("CLUSTER INFO").text().starts_with("cluster_state:ok\r\n"));
    let shards = client.say("CLUSTER SHARDS");
    let shard = shards.elements()[0].elements();
    assert_eq!(shard[1], Value::Array(vec![Value::Integer(0), Value::Integer(16383)]));
    assert_eq!(shard[3].elements()[0].elements()[1], Value::bulk(&id));
    assert_eq!(client.call(&["CLUSTER", "REPLICAS", &id]), Value::Array(vec![]));
    assert_eq!(client.say("CLUSTER LINKS"), Value::Array(vec![]));
    assert_eq!(client.say("READONLY"), Value::ok());
    assert!(client.say("CLIENT LIST").text().contains(" flags=r "));
    assert_eq!(client.say("READWRITE"), Value::ok());
    assert!(client.say("CLIENT LIST").text().contains(" flags=N "));
}
