//! A password is seen by the client that sends it and by nobody else: not by MONITOR, SLOWLOG,
//! CLIENT LIST or the log.

use crate::support::{Server, Value};

/// What clients may do wrong with a password; every one of them contains the word.
const LINES: &[&str] = &[
    "AUTH s3cret",
    "ACL SETUSER u on >s3cret ~* +@all",
    "ACL SETUSER u <s3cret nosuch",
    "ACL DRYRUN u AUTH u s3cret",
    "ACL GETUSER u s3cret",
    "ACL SETUSR u >s3cret",
    "AUTH user s3cret",
    "AUTH user s3cret more s3cret",
    "auth default s3cret",
    "HELLO 2 AUTH default s3cret",
    "hello 2 setname me auth default s3cret",
    "HELLO 2 AUTH s3cret",
    "HELLO x AUTH default s3cret",
    "CONFIG SET requirepass s3cret",
    "CONFIG SET RequirePass s3cret timeout 0",
    "CONFIG SET timeout x requirepass s3cret",
    "CONFIG SET requirepass a s3cret",
    "CONFIG SET requirepass a s3cret b",
    "CONFIG SET masterauth s3cret",
    "config set nosuch 1 masterauth s3cret",
    "MIGRATE 127.0.0.1 1 nothing 0 9 AUTH s3cret",
    "migrate 127.0.0.1 1 nothing 0 9 copy auth2 s3cret s3cret KEYS nothing",
    "MIGRATE 127.0.0.1 1 nothing 0 x AUTH s3cret s3cret",
];

fn slow_commands(server: &Server) -> Vec<String> {
    let mut client = server.client();
    client.say("AUTH s3cret");
    let found = client.say("SLOWLOG GET -1");
    let words = |entry: &Value| -> Vec<String> {
        entry.elements()[3].elements().iter().map(Value::text).collect()
    };
    found.elements().iter().map(|entry| words(entry).join(" ")).collect()
}

#[test]
fn nobody_sees_the_passwords_of_others() {
    let mut server = Server::start(&[
        "--shards",
        "2",
        "--slowlog-log-slower-than",
        "0",
        "--slowlog-max-len",
        "1000",
        "--log-level",
        "debug",
    ]);
    let mut monitor = server.client();
    assert_eq!(monitor.say("MONITOR"), Value::ok());
    let mut client = server.client();
    for line in LINES {
        client.say("CONFIG SET requirepass s3cret");
        client.say("AUTH s3cret");
        client.say(line);
        client.say("AUTH s3cret");
        assert_eq!(client.say("CONFIG SET requirepass s3cret"), Value::ok(), "{line}");
        // Once more in a transaction.
        assert_eq!(client.say("MULTI"), Value::ok(), "{line}");
        client.say(line);
        client.say("EXEC");
    }
    client.say("AUTH s3cret");
    assert_eq!(client.say("CLIENT SETNAME last"), Value::ok());
    let mut shown = Vec::new();
    while shown.last().is_none_or(|line: &String| !line.contains("\"last\"")) {
        shown.push(monitor.read().text());
    }
    assert!(shown.iter().any(|line| line.ends_with(r#""AUTH" "(redacted)""#)), "{shown:#?}");
    let greeting = r#""hello" "2" "setname" "me" "auth" "(redacted)" "(redacted)""#;
    assert!(shown.iter().any(|line| line.ends_with(greeting)), "{shown:#?}");
    let slow = slow_commands(&server);
    for expected in ["AUTH (redacted)", "CONFIG SET requirepass (redacted)"] {
        assert!(slow.iter().any(|line| line == expected), "{expected}: {slow:#?}");
    }
    let pair = "CONFIG SET RequirePass (redacted) timeout 0";
    assert!(slow.iter().any(|line| line == pair), "{slow:#?}");
    let clients = client.say("CLIENT LIST").text();
    let everything = client.say("INFO everything").text();
    let (status, log) = server.terminate();
    assert!(status.success(), "{log}");
    for text in shown.into_iter().chain(slow).chain([clients, everything, log]) {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
