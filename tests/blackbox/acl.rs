//! Users and what they may do: rules, denials and their words, changes under clients that are
//! connected.

use crate::support::oracle::{agree_with_redis, servers};
use crate::support::{Client, Program, Server, Value, eventually};
use std::collections::BTreeSet;

/// Requests of `acl.txt`, sent to the real redis-server and to ours: rules of all kinds and how
/// they are shown, refusals.
#[test]
fn replies_are_those_of_redis() {
    // Redis 7.0 shows the second rule only once it was said, 7.2 and this server always.
    agree_with_redis(
        include_str!("acl.txt"),
        &["ACL SETUSER u reset", "ACL SETUSER default sanitize-payload"],
    );
}

/// What commands need of each of their keys: every request of `acl_requests.txt`, asked for users
/// with and without the permission to read and to write its first key and the others.
#[test]
fn commands_need_of_their_keys_what_they_need_in_redis() {
    let redis = Server::start_redis(&[]);
    let server = Server::start(&[]);
    let (mut theirs, mut ours) = (redis.client(), server.client());
    let permissions = ["", "%R~", "%W~", "~"];
    let pairs =
        permissions.iter().flat_map(|first| permissions.iter().map(move |rest| (*first, *rest)));
    for (first, rest) in pairs {
        let mut rules = vec!["ACL", "SETUSER", "u", "reset", "+@all"];
        let own: Vec<String> = [(first, "a"), (rest, "b"), (rest, "c")]
            .iter()
            .filter(|(permission, _)| !permission.is_empty())
            .map(|(permission, key)| format!("{permission}{key}"))
            .chain((first == "~").then(|| "&a".to_string()))
            .collect();
        rules.extend(own.iter().map(String::as_str));
        for client in [&mut theirs, &mut ours] {
            assert_eq!(client.call(&rules), Value::ok());
        }
        for line in include_str!("acl_requests.txt").lines() {
            let request = format!("ACL DRYRUN u {line}\r\n");
            let [expected, found] = [&mut theirs, &mut ours]
                .map(|client| client.pipeline(request.as_bytes(), 1).remove(0).shown());
            // 7.0 does not name the user.
            let expected = expected.replace("This user", "User u");
            assert_eq!(found, expected, "{rules:?}: {line}");
        }
    }
}

/// What `-@dangerous` and the like take away.
#[test]
fn categories_are_those_of_redis() {
    let redis = Server::start_redis(&[]);
    let server = Server::start(&[]);
    let [mut theirs, mut ours] = [redis.client(), server.client()];
    let names = |client: &mut Client, request: &str| -> BTreeSet<String> {
        client.say(request).elements().iter().map(Value::text).collect()
    };
    let [known, own] = [&mut theirs, &mut ours].map(|client| names(client, "COMMAND LIST"));
    let common: BTreeSet<&str> = own.intersection(&known).map(String::as_str).collect();
    let parent = |name: &str| name.split('|').next().unwrap_or_default().to_string();
    let categories = names(&mut ours, "ACL CAT");
    assert_eq!(categories, names(&mut theirs, "ACL CAT"));
    for category in categories {
        let request = format!("ACL CAT {category}");
        let [expected, found] = [&mut theirs, &mut ours].map(|client| names(client, &request));
        let missing: Vec<&String> =
            expected.difference(&found).filter(|name| own.contains(*name)).collect();
        assert!(missing.is_empty(), "{category} lacks {missing:?}");
        // Redis 7.0 has none of the subcommands of DEBUG, and does not say that WAIT blocks.
        let is_common =
            |name: &&String| common.contains(parent(name).as_str()) && parent(name) != "debug";
        let added = found.difference(&expected).filter(is_common);
        let added: Vec<&String> =
            added.filter(|name| known_subcommand(&mut theirs, name) && *name != "wait").collect();
        assert!(added.is_empty(), "{category} has {added:?}");
    }
}

fn known_subcommand(client: &mut Client, name: &str) -> bool {
    let rows = client.say(&format!("COMMAND INFO {name}"));
    !matches!(rows.elements()[0], Value::Null | Value::NullArray)
}

trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Value {
    fn shown(&self) -> String {
        if self.is_error() { self.error().to_string() } else { self.text() }
    }
}

fn say(client: &mut Client, lines: &[&str]) {
    for line in lines {
        assert_eq!(client.say(line), Value::ok(), "{line}");
    }
}

fn refused(client: &mut Client, request: &str, text: &str) {
    let reply = client.pipeline(format!("{request}\r\n").as_bytes(), 1).remove(0);
    assert_eq!(reply, Value::Error(text.into()), "{request}");
}

fn client_of(server: &Server, user: &str) -> Client {
    let mut client = server.client();
    assert_eq!(client.call(&["AUTH", user, "x"]), Value::ok());
    client
}

const NO_KEY: &str = "NOPERM No permissions to access a key";
const NO_CHANNEL: &str = "NOPERM No permissions to access a channel";

fn no_command(name: &str) -> String {
    format!("NOPERM User u has no permissions to run the '{name}' command")
}

#[test]
fn denials_have_the_words_of_redis_7_2() {
    for server in servers() {
        let mut admin = server.client();
        say(
            &mut admin,
            &[
                "ACL SETUSER u on nopass ~r* &c* +@read +set +publish +subscribe +psubscribe +sort +multi +exec +acl|whoami",
            ],
        );
        let mut client = client_of(&server, "u");
        assert_eq!(client.say("ACL WHOAMI"), Value::bulk("u"));
        assert_eq!(client.say("SET r 1"), Value::ok());
        assert_eq!(client.say("GET r"), Value::bulk("1"));
        for (request, text) in [
            ("GET a", NO_KEY),
            ("SET a 1", NO_KEY),
            ("MGET r1 r2 a", NO_KEY),
            ("PUBLISH a 1", NO_CHANNEL),
            ("SUBSCRIBE c1 a", NO_CHANNEL),
            ("PSUBSCRIBE c1*", NO_CHANNEL),
            ("INCR r", &no_command("incr")),
            ("CONFIG GET a", &no_command("config|get")),
            ("ACL LIST", &no_command("acl|list")),
            ("PING", &no_command("ping")),
            ("EVAL 'return 1' 0", &no_command("eval")),
            ("SORT r BY x*", "ERR BY option of SORT denied due to insufficient ACL permissions."),
            ("SORT r GET #", "ERR GET option of SORT denied due to insufficient ACL permissions."),
            ("NOSUCH", "ERR unknown command 'NOSUCH', with args beginning with: "),
            ("GET", "ERR wrong number of arguments for 'get' command"),
        ] {
            refused(&mut client, request, text);
        }
        // One selector must allow all of a request.
        say(&mut admin, &["ACL SETUSER u (+incr ~a*) (+copy %R~r* %W~w*)"]);
        assert_eq!(client.say("INCR a"), Value::Integer(1));
        refused(&mut client, "INCR r", NO_KEY);
        refused(&mut client, "GET a", NO_KEY);
        assert_eq!(client.say("COPY r w"), Value::Integer(1));
        refused(&mut client, "COPY w r", NO_KEY);
        // Whoever may read all keys may sort by any.
        say(&mut admin, &["ACL SETUSER u %R~*"]);
        assert_eq!(client.say("SORT nosuch BY x*"), Value::Array(vec![]));
        let dryrun = admin.say("ACL DRYRUN u SET a 1").text();
        assert_eq!(dryrun, "User u has no permissions to access the 'a' key");
        // First arguments, and what needs no login.
        say(&mut admin, &["ACL SETUSER u -@all +select|0"]);
        assert_eq!(client.say("SELECT 0"), Value::ok());
        refused(&mut client, "SELECT 1", &no_command("select"));
        assert_eq!(client.say("RESET"), Value::Simple("RESET".into()));
        assert_eq!(client.say("ACL WHOAMI"), Value::bulk("default"));
    }
}

/// Every connection, on whatever core, has the new rights before the change is answered.
#[test]
fn a_change_holds_everywhere_when_it_is_answered() {
    for server in servers() {
        let mut admin = server.client();
        say(&mut admin, &["ACL SETUSER u on nopass ~* +@all", "ACL SETUSER v on nopass ~* +@all"]);
        let mut clients: Vec<Client> = (0..16).map(|_| client_of(&server, "u")).collect();
        let mut changed = client_of(&server, "v");
        for round in 0..40 {
            let (rule, is_allowed) = [("-get", false), ("+get", true)][round % 2];
            say(&mut changed, &[&format!("ACL SETUSER u {rule}")]);
            for (n, client) in clients.iter_mut().enumerate() {
                let reply = client.say(&format!("GET key:{n}"));
                assert_eq!(
                    reply,
                    if is_allowed { Value::Null } else { Value::Error(no_command("get")) }
                );
            }
        }
        let list = admin.say("CLIENT LIST").text();
        assert_eq!(list.matches(" user=u ").count(), clients.len(), "{list}");
        assert_eq!(admin.say("CLIENT KILL USER u"), Value::Integer(clients.len() as i64));
        assert_eq!(clients[3].read_to_close(), b"");
    }
}

#[test]
fn who_loses_a_user_or_a_channel_is_closed() {
    for server in servers() {
        let mut admin = server.client();
        say(
            &mut admin,
            &["ACL SETUSER u on nopass ~* &a* &b +@all", "ACL SETUSER v on nopass ~* &* +@all"],
        );
        let mut plain: Vec<Client> = (0..6).map(|_| client_of(&server, "u")).collect();
        let mut listeners: Vec<Client> = (0..6).map(|_| client_of(&server, "u")).collect();
        for (n, listener) in listeners.iter_mut().enumerate() {
            listener.say(["SUBSCRIBE a1", "PSUBSCRIBE a*", "SSUBSCRIBE b"][n % 3]);
        }
        // More, and the same by another name of the rule: nobody is closed.
        say(&mut admin, &["ACL SETUSER u &c", "ACL SETUSER u resetchannels &c &b &a*"]);
        for listener in &mut listeners {
            assert_eq!(listener.say("PING").elements()[0], Value::bulk("pong"));
        }
        say(&mut admin, &["ACL SETUSER u resetchannels &a* &c"]);
        for (n, listener) in listeners.iter_mut().enumerate() {
            if n % 3 == 2 {
                assert_eq!(listener.read_to_close(), b"", "{n}");
            } else {
                assert_eq!(listener.say("PING").elements()[0], Value::bulk("pong"));
            }
        }
        // A pattern must be there to the letter; a name must be among them.
        say(&mut admin, &["ACL SETUSER u resetchannels &a1 &a2*"]);
        assert_eq!(listeners[1].read_to_close(), b"");
        assert_eq!(listeners[0].say("PING").elements()[0], Value::bulk("pong"));
        for client in &mut plain {
            assert_eq!(client.say("SET k 1"), Value::ok());
        }
        // Who removes itself is answered.
        let mut own = client_of(&server, "u");
        assert_eq!(own.say("ACL DELUSER u v"), Value::Integer(2));
        assert_eq!(own.read_to_close(), b"");
        assert_eq!(listeners[0].read_to_close(), b"");
        for client in &mut plain {
            assert_eq!(client.read_to_close(), b"");
        }
        // Another one of the same name is another one.
        say(&mut admin, &["ACL SETUSER u on nopass +@all"]);
        client_of(&server, "u");
    }
}

#[test]
fn transactions_are_checked_when_queued_and_at_exec() {
    for server in servers() {
        let mut admin = server.client();
        say(&mut admin, &["ACL SETUSER u on nopass ~r* &c +@all", "ACL SETUSER v on >x ~* +@all"]);
        let mut client = client_of(&server, "u");
        say(&mut client, &["MULTI"]);
        refused(&mut client, "GET a", NO_KEY);
        refused(&mut client, "EXEC", "EXECABORT Transaction discarded because of previous errors.");
        say(&mut client, &["SET r:1 1", "MULTI"]);
        for request in [
            "INCR r:1",
            "GET r:2",
            "INCR r:3",
            "PUBLISH c m",
            "EVAL return(redis.call('incr','r:1')) 0",
        ] {
            assert_eq!(client.say(request), Value::Simple("QUEUED".into()));
        }
        say(&mut admin, &["ACL SETUSER u -get resetkeys ~r:1 resetchannels"]);
        let replies = client.say("EXEC");
        let changed = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
                       command is no longer allowed for the following reason: ";
        let denied = |reason: &str| Value::Error(format!("{changed}{reason}"));
        assert_eq!(
            replies.elements(),
            [
                Value::Integer(2),
                denied("no permission to execute the command or subcommand"),
                denied("no permission to touch the specified keys"),
                denied(
                    "no permission to access one of the channels used as arguments to the command"
                ),
                Value::Integer(3),
            ]
        );
        // Who logs in on the way has the new rights from there on, scripts included; and the old
        // ones before.
        let script = "EVAL return(redis.pcall('incr','s')) 0";
        say(&mut client, &["MULTI"]);
        for request in [script, "AUTH v x", script, "STRLEN r:1"] {
            assert_eq!(client.say(request), Value::Simple("QUEUED".into()));
        }
        let replies = client.say("EXEC");
        assert!(replies.elements()[0].is_error(), "{replies:?}");
        assert_eq!(replies.elements()[1..], [Value::ok(), Value::Integer(1), Value::Integer(1)]);
        assert_eq!(client.say("ACL WHOAMI"), Value::bulk("v"));
        // EXEC itself.
        say(&mut admin, &["ACL SETUSER u -exec"]);
        let mut client = client_of(&server, "u");
        say(&mut client, &["MULTI"]);
        let text = "EXECABORT Transaction discarded because of: NOPERM User u has no permissions to run the 'exec' command";
        refused(&mut client, "EXEC", text);
        say(&mut client, &["MULTI"]);
    }
}

#[test]
fn scripts_have_the_rights_of_their_caller() {
    for server in servers() {
        let mut admin = server.client();
        say(&mut admin, &["ACL SETUSER u on nopass ~r* +@all -incr", "SET a 1", "SET r:1 1"]);
        let load = [
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('f', function(k) return redis.call('get', k[1] or 'a') end)",
        ];
        assert_eq!(admin.call(&load), Value::bulk("l"));
        let mut client = client_of(&server, "u");
        let get = |key: &str| format!("EVAL return(redis.call('get','{key}')) 0");
        assert_eq!(client.say(&get("r:1")), Value::bulk("1"));
        let denied = client.say(&get("a"));
        assert!(
            denied
                .error()
                .starts_with("ERR ACL failure in script: No permissions to access a key script: "),
            "{denied:?}"
        );
        let denied = client.say("EVAL return(redis.pcall('incr','r:1')) 0");
        let text = "ERR ACL failure in script: User u has no permissions to run the 'incr' command";
        assert_eq!(denied, Value::Error(text.into()));
        assert!(client.say("FCALL f 0").is_error());
        assert_eq!(client.say("FCALL f 1 r:1"), Value::bulk("1"));
        refused(&mut client, "FCALL f 1 a", NO_KEY);
        // Keys of many shards, found out one after the other: it runs again and again, and is
        // denied the last all the same.
        let chain =
            "EVAL \"for i=1,40 do redis.call('set','r:'..i,i) end return redis.call('get','a')\" 0";
        assert!(client.pipeline(format!("{chain}\r\n").as_bytes(), 1)[0].is_error());
        for (command, expected) in
            [("'get','a'", 0), ("'get','r'", 1), ("'incr','r'", 0), ("'acl','whoami'", 1)]
        {
            // False is nil to a client.
            let reply = client.say(&format!("EVAL return(redis.acl_check_cmd({command})) 0"));
            assert_eq!(reply == Value::Integer(1), expected == 1, "{command}: {reply:?}");
        }
        assert_eq!(admin.say("GET a"), Value::bulk("1"));
        let log = admin.say("ACL LOG");
        assert_eq!(field(&log.elements()[0], "context"), "lua");
    }
}

/// The value of a field of an entry of ACL LOG.
fn field(entry: &Value, name: &str) -> String {
    let at = entry.elements().iter().position(|word| *word == Value::bulk(name));
    let value = &entry.elements()[at.expect(name) + 1];
    match value {
        Value::Integer(number) => number.to_string(),
        text => text.text(),
    }
}

/// Whoever waits for a key that it may not have any more is told so, and takes nothing.
#[test]
fn who_waits_loses_its_rights_too() {
    for server in servers() {
        let mut admin = server.client();
        say(&mut admin, &["ACL SETUSER u on nopass ~* +@all", "XADD s 1-1 f v"][..1]);
        let requests = [
            "BLPOP l 0",
            "BLPOP l l2 l3 l4 0",
            "XREAD BLOCK 0 STREAMS s s2 0 0",
            "BLMOVE l l9 LEFT LEFT 0",
        ];
        let mut waiting: Vec<Client> = requests
            .iter()
            .map(|request| {
                let mut client = client_of(&server, "u");
                client.send(format!("{request}\r\n").as_bytes());
                client
            })
            .collect();
        eventually("all of them wait", || {
            (server.info_number("blocked_clients") == requests.len() as i64).then_some(())
        });
        say(&mut admin, &["ACL SETUSER u +ping", "ACL SETUSER u resetkeys ~k"]);
        for client in &mut waiting {
            assert_eq!(client.read(), Value::Error(NO_KEY.into()));
            assert_eq!(client.say("PING"), Value::Simple("PONG".into()));
        }
        assert_eq!(admin.say("RPUSH l a b"), Value::Integer(2));
        assert_eq!(admin.say("LRANGE l 0 -1").elements().len(), 2);
    }
}

#[test]
fn denials_are_logged_and_counted() {
    for server in servers() {
        let mut admin = server.client();
        say(&mut admin, &["ACL SETUSER u on >x ~r* &c +@all -incr", "ACL LOG RESET"]);
        let mut client = client_of(&server, "u");
        assert!(server.client().say("AUTH u wrong").is_error());
        assert!(server.client().say("AUTH nobody wrong").is_error());
        for request in
            ["GET a", "GET a", "GET r", "INCR r", "PUBLISH x 1", "MULTI", "GET b", "DISCARD"]
        {
            client.say(request);
        }
        let log = admin.say("ACL LOG");
        let shown: Vec<String> = log
            .elements()
            .iter()
            .map(|entry| {
                ["count", "reason", "context", "object", "username"]
                    .map(|name| field(entry, name))
                    .join(" ")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "1 key multi b u",
                "1 channel toplevel x u",
                "1 command toplevel incr u",
                "2 key toplevel a u",
                "1 auth toplevel AUTH nobody",
                "1 auth toplevel AUTH u",
            ]
        );
        let info = field(&log.elements()[2], "client-info");
        assert!(info.contains(" user=u ") && info.contains(" cmd=incr "), "{info}");
        for (reason, count) in [("cmd", 1), ("key", 3), ("channel", 1), ("auth", 2)] {
            assert_eq!(
                server.info_number(&format!("acl_access_denied_{reason}")),
                count,
                "{reason}"
            );
        }
        say(&mut admin, &["CONFIG SET acllog-max-len 2"]);
        assert_eq!(admin.say("ACL LOG").elements().len(), 2);
        assert_eq!(admin.say("ACL LOG 1").elements().len(), 1);
        say(&mut admin, &["ACL LOG RESET"]);
        assert_eq!(admin.say("ACL LOG"), Value::Array(vec![]));
    }
}

#[test]
fn the_default_user_is_one_like_others() {
    let server = Server::start(&["--requirepass", "p"]);
    let mut stranger = server.client();
    refused(&mut stranger, "GET a", "NOAUTH Authentication required.");
    refused(&mut stranger, "ACL WHOAMI", "NOAUTH Authentication required.");
    let mut admin = server.client();
    say(&mut admin, &["AUTH default p", "ACL SETUSER u on nopass ~* +@all"]);
    say(&mut stranger, &["AUTH u anything"]);
    assert_eq!(stranger.say("GET a"), Value::Null);
    let mut greeted = server.client();
    assert!(!greeted.say("HELLO 3 AUTH u x").is_error());
    assert_eq!(greeted.say("ACL WHOAMI"), Value::bulk("u"));
    // Limits of the default user hold for those who are connected as it, and for those who come.
    say(
        &mut stranger,
        &["CONFIG SET requirepass ''", "ACL SETUSER default nopass -@all +get resetkeys ~a"],
    );
    for client in [&mut admin, &mut server.client()] {
        assert_eq!(client.say("GET a"), Value::Null);
        refused(client, "GET b", NO_KEY);
        assert!(
            client.say("SET a 1").error().starts_with("NOPERM User default has no permissions")
        );
    }
    say(&mut stranger, &["ACL SETUSER default off"]);
    refused(&mut server.client(), "GET a", "NOAUTH Authentication required.");
    assert!(server.client().say("AUTH default x").error().starts_with("WRONGPASS"));
    say(&mut stranger, &["ACL SETUSER default on +@all ~* &*"]);
    assert_eq!(admin.say("SET a 1"), Value::ok());
}

#[test]
fn users_of_the_configuration_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    let own = format!(
        "user = [\"alice on >a ~a* +@all\", \"bob off #{digest} (+get ~b)\"]\nrequirepass = \"p\"\n"
    );
    let of_redis =
        format!("requirepass p\nuser alice on >a ~a* +@all\nuser bob off #{digest} (+get ~b)\n");
    for (name, text, flag) in [("own.toml", own, "--config"), ("redis.conf", of_redis, "")] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writable");
        let path = path.to_str().expect("text");
        let arguments: Vec<&str> =
            [flag, path].into_iter().filter(|word| !word.is_empty()).collect();
        let mut server = Server::start(&arguments);
        let mut client = server.client();
        say(&mut client, &["AUTH alice a", "SET a 1"]);
        refused(&mut client, "GET b", NO_KEY);
        let list = format!("{:?}", client.say("ACL LIST"));
        assert!(list.contains(&format!("user bob off sanitize-payload #{digest} resetchannels -@all (~b resetchannels -@all +get)")), "{list}");
        if flag.is_empty() {
            continue;
        }
        // What is changed at run time stays when it is written.
        say(
            &mut client,
            &["ACL SETUSER carol on >c +@all ~c", "ACL SETUSER default >q", "CONFIG REWRITE"],
        );
        assert_eq!(client.say("ACL DELUSER bob"), Value::Integer(1));
        say(&mut client, &["CONFIG REWRITE"]);
        server.restart();
        let mut client = server.client();
        say(&mut client, &["AUTH p", "AUTH q", "AUTH carol c", "SET c 1"]);
        assert_eq!(client.say("ACL USERS").elements().len(), 3);
    }
    for (line, cause) in [
        ("alice on nosuch", "user alice: Syntax error"),
        ("alice on >s3cret +nosuch", "user alice: Unknown command or category name in ACL"),
        ("alice on\nuser alice off", "user alice is declared twice"),
        ("alice (+get", "Unmatched parenthesis"),
    ] {
        let path = folder.path().join("broken.conf");
        std::fs::write(&path, format!("user {line}\n")).expect("writable");
        let mut server = Server::prepare(Program::Ringraft, &[path.to_str().expect("text")]);
        let refusal = server.try_launch().expect_err(line).to_string();
        assert!(refusal.contains(cause) && !refusal.contains("s3cret"), "{refusal}");
    }
}

#[test]
fn the_file_of_users_is_written_and_read_as_a_whole() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.acl");
    let file = path.to_str().expect("text").to_string();
    let mut server = Server::prepare(
        Program::Ringraft,
        &["--cores-in-use", "all", "--shards", "4", "--aclfile", &file],
    );
    let missing = server.try_launch().expect_err("there is no file").to_string();
    assert!(
        missing.contains(&format!(
            "Error loading ACLs, opening file '{file}': No such file or directory"
        )),
        "{missing}"
    );
    std::fs::write(&path, "user alice on >a ~* +@all\n").expect("writable");
    server.launch();
    let mut client = server.client();
    say(
        &mut client,
        &[
            "AUTH alice a",
            "ACL SETUSER bob on >b ~b* (+get ~c) &x +@read",
            "ACL SETUSER default >d",
            "ACL SAVE",
        ],
    );
    let written = std::fs::read_to_string(&path).expect("it was written");
    let listed: Vec<String> = client.say("ACL LIST").elements().iter().map(Value::text).collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), listed);
    server.restart();
    let mut client = server.client();
    refused(&mut client, "GET a", "NOAUTH Authentication required.");
    say(&mut client, &["AUTH bob b", "AUTH alice a"]);
    let restarted: Vec<String> =
        client.say("ACL LIST").elements().iter().map(Value::text).collect();
    assert_eq!(restarted, listed);
    // A broken file changes nothing, and says what is wrong where.
    let mut bobs: Vec<Client> = (0..4)
        .map(|_| {
            let mut c = server.client();
            say(&mut c, &["AUTH bob b"]);
            c
        })
        .collect();
    let broken =
        "user alice on\nuser bob on +nosuch worse\nuser bob off\nsomething\nuser carol (+get\n";
    std::fs::write(&path, broken).expect("writable");
    let text = format!(
        "ERR {file}:2: Error in applying operation '+nosuch': Unknown command or category name in ACL. {file}:2: Syntax error. \
         WARNING: Duplicate user 'bob' found on line 3. {file}:4 should start with user keyword followed by the username. \
         {file}:5: Unmatched parenthesis in selector definition.WARNING: ACL errors detected, no change to the previously \
         active ACL rules was performed"
    );
    refused(&mut client, "ACL LOAD", &text);
    for bob in &mut bobs {
        assert_eq!(bob.say("GET b"), Value::Null);
    }
    // Who is not in the file is gone; who is keeps its connections, with new rights.
    std::fs::write(&path, "user alice on >a ~* +@all\nuser bob on >b ~b +get\n").expect("writable");
    let mut stray = server.client();
    say(&mut client, &["ACL SETUSER dave on nopass +@all"]);
    say(&mut stray, &["AUTH dave x"]);
    say(&mut client, &["ACL LOAD"]);
    assert_eq!(stray.read_to_close(), b"");
    for bob in &mut bobs {
        assert_eq!(bob.say("GET b"), Value::Null);
        refused(bob, "GET b1", NO_KEY);
    }
    // Nor does a server start with a broken one.
    std::fs::write(&path, broken).expect("writable");
    server.terminate();
    let refusal = server.try_launch().expect_err("it is broken").to_string();
    assert!(refusal.contains(&format!("{file}:2: Syntax error")), "{refusal}");
}
