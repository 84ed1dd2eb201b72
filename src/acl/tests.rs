//! What rules make of users, how they are shown, and what they allow.

use super::rules::{RuleError, joined};
use super::selector::Denied;
use super::user::{Denial, User};
use super::users::Users;
use crate::core::commands::key_access::Channels;
use crate::core::commands::table;
use ringraft_shards::arguments::OwnedArguments;

fn user(rules: &str) -> User {
    let mut user = User::new(b"u".to_vec(), 1, false);
    let words: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
    for rule in joined(&words).expect("brackets are closed") {
        user.apply(&rule, false).unwrap_or_else(|error| panic!("{rules}: {error}"));
    }
    user
}

fn shown(user: &User) -> String {
    String::from_utf8(user.describe()).expect("text")
}

fn check(user: &User, request: &str) -> Result<(), Denial> {
    let owned: OwnedArguments = request.split(' ').map(str::as_bytes).collect();
    user.check(table::resolve(owned.borrow()).expect(request), owned.borrow())
}

#[test]
fn rules_are_shown_as_they_stand() {
    for (rules, expected) in [
        ("on nopass ~* &* +@all", "on nopass sanitize-payload ~* &* +@all"),
        ("off +get -get", "off sanitize-payload resetchannels -@all -get"),
        ("+config|get +config", "off sanitize-payload resetchannels -@all +config"),
        ("+config +config|get", "off sanitize-payload resetchannels -@all +config +config|get"),
        ("+@read -@read +GET", "off sanitize-payload resetchannels -@all -@read +get"),
        ("+@all -@admin +@all", "off sanitize-payload resetchannels +@all"),
        ("%R~a %W~a %R~b", "off sanitize-payload ~a %R~b resetchannels -@all"),
        ("&a &b &*", "off sanitize-payload &* -@all"),
        ("(~a +get) clearselectors", "off sanitize-payload resetchannels -@all"),
        ("on ~a reset", "off sanitize-payload resetchannels -@all"),
        ("+select|X +select|x", "off sanitize-payload resetchannels -@all +select|x"),
        ("~a ~* resetkeys ~b", "off sanitize-payload ~b resetchannels -@all"),
    ] {
        assert_eq!(shown(&user(rules)), expected, "{rules}");
    }
}

#[test]
fn a_refused_rule_changes_nothing() {
    for (rule, error) in [
        ("nosuch", RuleError::Syntax),
        ("%X~a", RuleError::Syntax),
        ("~a b", RuleError::Syntax),
        ("&a\tb", RuleError::Syntax),
        ("+select|a b", RuleError::Syntax),
        ("+config|", RuleError::Syntax),
        ("+nosuch", RuleError::Unknown),
        ("+@nosuch", RuleError::Unknown),
        ("-config|nosuch", RuleError::Unknown),
        ("+run-queued", RuleError::Unknown),
        ("+config|get|x", RuleError::FirstWordOfSubcommand),
        ("#abc", RuleError::Digest),
        ("<x", RuleError::NoSuchPassword),
        ("(+get nosuch)", RuleError::Syntax),
        ("(on)", RuleError::Syntax),
    ] {
        let mut changed = user("on >p ~k +get (~a +set)");
        let before = changed.clone();
        assert_eq!(changed.apply(rule.as_bytes(), false), Err(error), "{rule}");
        assert_eq!(changed, before, "{rule}");
    }
    let mut all = user("~* &*");
    assert_eq!(all.apply(b"~a", false), Err(RuleError::AllKeys));
    assert_eq!(all.apply(b"&a", false), Err(RuleError::AllChannels));
    assert_eq!(joined(&[b"on", b"(+get", b"~a"]), Err(1));
}

/// A file that is written is read back as the same users, whatever their patterns hold.
#[test]
fn what_is_written_is_read_back() {
    let rules: &[&[u8]] = &[
        b"on",
        b">p",
        b"~a)",
        b"%R~\"x",
        b"&\xff'",
        b"+@all",
        b"-@dangerous",
        b"+info",
        b"+debug|object",
        b"+select|(\"",
        b"(~a +get)",
        b"(\"~b)\" \"%W~c\\\"'\" +set &x)",
        b"(\"~d\\\\\" allchannels)",
        b"()",
    ];
    let mut users = Users::new("");
    users.set(b"odd\xff(name", rules, false).expect("all of them are rules");
    let text_of = |users: &Users| -> Vec<u8> {
        users.lines().flat_map(|line| [line, b"\n".to_vec()].concat()).collect()
    };
    let text = text_of(&users);
    let again = Users::new("p").read_text(&text, "f", false).expect("it is a file of users");
    let [one, two] = [&users, &again].map(|users| users.get(b"odd\xff(name").expect("it is there"));
    assert_eq!((&one.root, &one.others), (&two.root, &two.others), "{}", text.escape_ascii());
    assert!(one.others.iter().all(|other| !other.keys.is_empty() || !other.all_channels));
    assert_eq!(text_of(&again), text);
    // The configuration file is text.
    assert_eq!(users.configured(""), None);
    assert_eq!(Users::new("p").configured("p"), Some(vec![]));
    assert_eq!(Users::new("p").configured("q").map(|lines| lines.len()), Some(1));
}

#[test]
fn one_selector_must_allow_all() {
    let limited = user("~a* &c* +@read +select|1 (~b %R~r +@write) (%W~w +copy %R~r)");
    let denied = |by| Err(Denial::By(by));
    for (request, expected) in [
        ("GET a1", Ok(())),
        ("GET b", denied(Denied::Key(1))),
        ("SET b 1", Ok(())),
        ("SET a 1", denied(Denied::Key(1))),
        ("MGET a1 a2 x a3", denied(Denied::Key(3))),
        ("COPY r w", Ok(())),
        ("COPY r b", Ok(())),
        ("COPY w r", denied(Denied::Key(1))),
        ("COPY r r", denied(Denied::Key(2))),
        ("SELECT 1", Ok(())),
        ("SELECT 2", denied(Denied::Command)),
        ("PING", denied(Denied::Command)),
        ("AUTH x", Ok(())),
        ("QUIT", Ok(())),
    ] {
        assert_eq!(check(&limited, request), expected, "{request}");
    }
    assert!(!limited.is_unlimited() && user("(~* &* +@all)").is_unlimited());
    assert!(
        !user("~* &* +@all -get").is_unlimited()
            && user("~* &* +@all -get +get").is_unlimited()
            && !user("%RW~* &* +@all").is_unlimited()
    );
    let listener = user("&c* +@pubsub");
    for (request, is_allowed) in [
        ("SUBSCRIBE c1", true),
        ("SUBSCRIBE c1 d", false),
        ("PSUBSCRIBE c*", true),
        ("PSUBSCRIBE c1*", false),
        ("SSUBSCRIBE c1", true),
        ("SPUBLISH d m", false),
        ("UNSUBSCRIBE d", true),
        ("PUBSUB CHANNELS", true),
    ] {
        assert_eq!(check(&listener, request).is_ok(), is_allowed, "{request}");
    }
}

#[test]
fn sort_needs_all_keys_for_what_patterns_name() {
    let some = user("+sort ~a");
    assert_eq!(check(&some, "SORT a BY nosort"), Ok(()));
    assert_eq!(check(&some, "SORT a BY x*"), Err(Denial::Option("BY")));
    assert_eq!(check(&some, "SORT a GET #"), Err(Denial::Option("GET")));
    assert_eq!(check(&some, "SORT b BY x*"), Err(Denial::By(Denied::Key(1))));
    for all in ["+sort ~*", "+sort %R~*", "+sort ~a (+sort %R~*)"] {
        assert_eq!(check(&user(all), "SORT a BY x* GET y*"), Ok(()), "{all}");
    }
}

#[test]
fn lost_channels_are_those_whose_pattern_is_gone() {
    for (before, after, is_lost) in [
        ("&a &b", "&b &a &c", false),
        ("&a &b", "&a", true),
        ("&a*", "&*", false),
        ("&*", "&a", true),
        ("&a (&b)", "&b (&a)", false),
        ("&a1", "&a*", true),
        ("", "&a", false),
    ] {
        let [before, after] = [before, after].map(user);
        assert_eq!(after.loses_channels(&before), is_lost, "{} {}", shown(&before), shown(&after));
    }
    let listener = user("&a* (&b)");
    assert!(
        listener.may_listen(b"a1", Channels::Names) && listener.may_listen(b"b", Channels::Names)
    );
    assert!(listener.may_listen(b"a*", Channels::Patterns));
    assert!(
        !listener.may_listen(b"a1*", Channels::Patterns)
            && !listener.may_listen(b"c", Channels::Names)
    );
}

#[test]
fn users_are_changed_by_all_rules_or_none() {
    let mut users = Users::new("p");
    assert!(users.ask_for_password() && users.log_in(b"default", b"p").is_some());
    assert!(users.log_in(b"default", b"q").is_none() && users.log_in(b"nobody", b"p").is_none());
    let refused =
        users.set(b"new", &[b"on", b">x", b"nosuch"], false).expect_err("the last is none");
    assert_eq!(refused.to_string(), "ERR Error in ACL SETUSER modifier 'nosuch': Syntax error");
    assert!(users.get(b"new").is_none());
    users.set(b"new", &[b"on", b">x"], false).expect("rules");
    let first = users.get(b"new").expect("just made").id;
    assert!(users.set(b"new", &[b"off", b"nosuch"], false).is_err());
    assert!(users.log_in(b"new", b"x").is_some(), "it is still on");
    assert!(users.remove(b"new") && !users.remove(b"new"));
    users.set(b"new", &[b"on", b"nopass"], true).expect("rules");
    let second = users.get(b"new").expect("just made");
    assert!(second.id != first && second.root.all_channels && second.lets_in(b"anything"));
    // Who is in the file keeps its identity.
    let read = users.read_text(b"user new on\nuser other off\n", "f", false).expect("a file");
    assert_eq!(read.get(b"new").map(|user| user.id), users.get(b"new").map(|user| user.id));
    assert!(!read.ask_for_password(), "the file does not speak of the default user");
}
