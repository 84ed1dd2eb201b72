//! The real redis-server as the judge of replies.

use super::{Client, Server, Value};

/// Servers of all shapes: one shard; several on one core; several on two; without a log, with one,
/// and with one that does not wait for the disk.
pub fn servers() -> Vec<Server> {
    let shapes: [&[&str]; 6] = [
        &["--shards", "1"],
        &["--shards", "1", "--fsync", "everysec"],
        &["--shards", "4", "--cores", "0"],
        &["--shards", "4", "--cores-in-use", "all"],
        &["--shards", "1", "--mode", "cache"],
        &["--shards", "4", "--mode", "cache", "--cores-in-use", "all"],
    ];
    shapes.iter().map(|shape| Server::start(shape)).collect()
}

/// Sends each line as an inline request to the real redis-server and to servers of all shapes, in
/// both protocols; the replies are the same. `cleanings` are said before, and answered by OK.
pub fn agree_with_redis(lines: &str, cleanings: &[&str]) {
    let redis = Server::start_redis(&[]);
    let mut oracle = redis.client();
    let servers = servers();
    let mut clients: Vec<Client> = servers.iter().map(Server::client).collect();
    for protocol in ["2", "3"] {
        for client in clients.iter_mut().chain([&mut oracle]) {
            client.call(&["HELLO", protocol]);
            for cleaning in cleanings {
                assert_eq!(client.say(cleaning), Value::ok());
            }
        }
        for line in lines.lines() {
            let request = format!("{line}\r\n");
            let expected = oracle.pipeline(request.as_bytes(), 1);
            for client in &mut clients {
                let reply = client.pipeline(request.as_bytes(), 1);
                assert_eq!(reply, expected, "RESP{protocol}: {line}");
            }
        }
    }
}
