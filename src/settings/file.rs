//! The TOML file of settings: read at the start, written back by CONFIG REWRITE.
//!
//! Flat `name = value` lines under the names of the table. A value may be written as text, as a
//! number or, where the setting is a list, as an array; what it means is the row's affair, as on
//! the command line.

use super::Settings;
use super::redis_file;
use super::row::{Kind, Setting};
use super::table::TABLE;
use super::values::join;
use crate::refusal::Refusal;
use std::io;
use std::path::Path;
use toml_edit::{Document, DocumentMut, Item, Value};

/// Reads a file into settings: TOML, or Redis' own format.
/// Errors: one line with the file, the line and the key.
pub fn load(path: &Path, settings: &mut Settings) -> Result<(), String> {
    let place = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    let absolute = std::path::absolute(path).map_err(|error| format!("{place}: {error}"))?;
    settings.config_file = Some(absolute);
    settings.config_is_redis = redis_file::is_redis_format(path, &text);
    if settings.config_is_redis {
        return redis_file::load(path, &text, settings);
    }
    let line_of = |span: Option<std::ops::Range<usize>>| {
        let before = span.map_or("", |span| &text[..span.start.min(text.len())]);
        before.matches('\n').count() + 1
    };
    let document = Document::parse(text.as_str()).map_err(|error| {
        let message = error.message().replace('\n', ", ");
        format!("{place}, line {}: not TOML: {message}", line_of(error.span()))
    })?;
    let mut seen: Vec<&'static str> = Vec::new();
    for (key, item) in document.iter() {
        let span = document.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
        let line = line_of(span);
        let refuse = |cause: &str| Err(format!("{place}, line {line}: {key}: {cause}"));
        if key == USERS {
            let Some(users) = item.as_array().and_then(texts_of) else {
                return refuse("the value is no array of texts, one for each user");
            };
            settings.users = users;
            continue;
        }
        let Some((row, _)) = find_option(key) else {
            return refuse("no such setting (ringraft --help lists them)");
        };
        if seen.contains(&row.name) {
            return refuse(&format!("{} is given twice", row.name));
        }
        seen.push(row.name);
        let Some(value) = item.as_value().and_then(text_of) else {
            return refuse(&format!("the value is a {}, not text or a number", item.type_name()));
        };
        if let Err(cause) = settings.set_row(row, &value) {
            return refuse(&cause);
        }
    }
    Ok(())
}

/// The key of the users: an array of texts, each a name and its rules.
const USERS: &str = "user";

fn texts_of(items: &toml_edit::Array) -> Option<Vec<String>> {
    items.iter().map(|item| item.as_str().map(str::to_string)).collect()
}

/// Why CONFIG REWRITE refuses. `Display` is the text after the `-`.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// There is no file to write.
    #[error("ERR The server is running without a config file")]
    NoFile,
    /// It is not ours to write.
    #[error("ERR Rewriting config file: it is in Redis' format, which is read and not written")]
    Redis,
    /// It can no longer be read or written.
    #[error("ERR Rewriting config file: {0}")]
    File(#[from] io::Error),
    /// Someone has made it unreadable meanwhile.
    #[error("ERR Rewriting config file: it is no longer TOML: {0}")]
    Malformed(String),
}

impl From<RewriteError> for Refusal {
    fn from(error: RewriteError) -> Refusal {
        Refusal::Text(error.to_string().into())
    }
}

/// Writes the settings back into the file they came from. Lines whose value still holds stay as
/// they are, comments and order too; others are changed in place; what is new and not the default
/// is added at the end. Errors: the file is then as it was.
/// Cost: one synced file write on the calling thread.
pub fn rewrite(settings: &Settings) -> Result<(), RewriteError> {
    let path = settings.config_file.as_deref().ok_or(RewriteError::NoFile)?;
    if settings.config_is_redis {
        return Err(RewriteError::Redis);
    }
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let changed = rewritten(settings, &text)
        .map_err(|error| RewriteError::Malformed(error.message().replace('\n', ", ")))?;
    Ok(crate::files::replace(path, changed.as_bytes())?)
}

fn rewritten(settings: &Settings, text: &str) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let mut added = String::new();
    let mut defaults = Settings { mode: settings.mode, ..Settings::default() };
    defaults.settle();
    for row in TABLE.iter().filter(|row| row.is_option()) {
        if !row.at_run_time && !settings.is_given(row.name) {
            continue;
        }
        let present =
            document.iter().find(|(key, _)| row.names().any(|n| n.eq_ignore_ascii_case(key)));
        match present.map(|(key, item)| (key.to_string(), says(row, item, settings))) {
            Some((_, true)) => {}
            Some((key, false)) => {
                let mut value = value_of(row, settings);
                if let Some(old) = document.get(&key).and_then(Item::as_value) {
                    *value.decor_mut() = old.decor().clone();
                }
                document[&key] = Item::Value(value);
            }
            None if row.kind.get(settings) != row.kind.get(&defaults) => {
                added.push_str(&format!("{} = {}\n", row.name, value_of(row, settings)));
            }
            None => {}
        }
    }
    let known = document.get(USERS).and_then(Item::as_array).and_then(texts_of);
    if known.unwrap_or_default() != settings.users {
        let mut users = toml_edit::Array::from_iter(settings.users.iter());
        users.iter_mut().for_each(|user| user.decor_mut().set_prefix("\n    "));
        users.set_trailing("\n");
        document[USERS] = Item::Value(Value::Array(users));
    }
    let mut changed = document.to_string();
    if !added.is_empty() && !changed.is_empty() && !changed.ends_with('\n') {
        changed.push('\n');
    }
    Ok(changed + &added)
}

/// Does this line of the file say what the settings hold?
fn says(row: &'static Setting, item: &Item, settings: &Settings) -> bool {
    let mut read = Settings::default();
    let set = item.as_value().and_then(text_of).map(|text| read.set_row(row, &text));
    set == Some(Ok(())) && row.kind.get(&read) == row.kind.get(settings)
}

fn value_of(row: &Setting, settings: &Settings) -> Value {
    match row.kind {
        Kind::Integer { get, .. } => get(settings).into(),
        Kind::Size { get, .. } | Kind::Count { get, .. } => (get(settings) as i64).into(),
        _ => row.kind.get(settings).into(),
    }
}

fn find_option(name: &str) -> Option<(&'static Setting, &'static str)> {
    Setting::find(name).filter(|(row, _)| row.is_option())
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(text_of).collect();
            texts.map(|texts| join(texts.iter(), " "))
        }
        Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("ringraft.toml");
        std::fs::write(&path, text).expect("writable");
        let mut settings = Settings::default();
        load(&path, &mut settings).map_err(|error| {
            let (_, rest) = error.split_once("ringraft.toml").expect("names the file");
            rest.to_string()
        })?;
        Ok(settings)
    }

    #[test]
    fn every_option_can_stand_in_the_file() {
        for row in TABLE.iter().filter(|row| row.is_option()) {
            let value = row.kind.get(&Settings::default());
            for name in row.names() {
                let settings = loaded(&format!("# a comment\n{name} = \"{value}\"\n")).expect(name);
                assert!(settings.is_given(row.name), "{name}");
            }
        }
    }

    #[test]
    fn values_may_be_numbers_and_lists() {
        let settings =
            loaded("port = 7000\nmaxmemory = '2gb'\ncores = [0, '2-3']\nbind = ['127.0.0.1']");
        let settings = settings.expect("well formed");
        assert_eq!((settings.port, settings.maxmemory), (7000, 2 << 30));
        assert_eq!(settings.cores, Some(vec![0, 2, 3]));
    }

    #[test]
    fn refusals_name_file_line_and_key() {
        for (text, refusal) in [
            ("port = 1\nprot = 2", ", line 2: prot: no such setting (ringraft --help lists them)"),
            ("save = ''", ", line 1: save: no such setting (ringraft --help lists them)"),
            ("\nport = 70000", ", line 2: port: argument must be between 0 and 65535 inclusive"),
            ("port = 1.5", ", line 1: port: the value is a float, not text or a number"),
            ("[port]\nx = 1", ", line 1: port: the value is a table, not text or a number"),
            ("fsync = 'no'\nappendfsync = 'no'", ", line 2: appendfsync: fsync is given twice"),
            (
                "mode = 'both'",
                ", line 1: mode: argument(s) must be one of the following: store, cache",
            ),
        ] {
            assert_eq!(loaded(text).expect_err(text), refusal);
        }
        let refusal = loaded("port = 1\nport 2").expect_err("no TOML");
        assert!(
            refusal.starts_with(", line 2: not TOML: ") && !refusal.contains('\n'),
            "{refusal}"
        );
        let missing = load(Path::new("/nowhere/at.toml"), &mut Settings::default());
        assert!(missing.expect_err("no file").starts_with("/nowhere/at.toml: "));
    }

    #[test]
    fn rewriting_keeps_what_holds() {
        let text = "\
# Our server.
port = 7000 # for clients

maxmemory = \"2gb\"   # as before
timeout = 5 # seconds
appendfsync = \"no\"
";
        let mut settings = loaded(text).expect("well formed");
        assert_eq!(rewritten(&settings, text).expect("TOML"), text);
        let pairs: [(&[u8], &[u8]); 3] =
            [(b"timeout", b"9"), (b"requirepass", b"a \"b\""), (b"fsync", b"always")];
        settings.set(&pairs).expect("valid");
        let expected = text
            .replace("timeout = 5", "timeout = 9")
            .replace("appendfsync = \"no\"", "appendfsync = \"always\"");
        let rewritten = rewritten(&settings, text).expect("TOML");
        assert_eq!(rewritten, expected + "requirepass = 'a \"b\"'\n");
        let again = loaded(&rewritten).expect("what was written can be read");
        for row in TABLE {
            assert_eq!(row.kind.get(&again), row.kind.get(&settings), "{}", row.name);
        }
    }

    #[test]
    fn rewriting_needs_a_file_and_writes_it() {
        let without = rewrite(&Settings::default()).expect_err("no file");
        assert_eq!(without.to_string(), "ERR The server is running without a config file");
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("ringraft.toml");
        std::fs::write(&path, "# empty\n").expect("writable");
        let mut settings = Settings::default();
        load(&path, &mut settings).expect("well formed");
        settings.set(&[(b"maxmemory", b"1mb")]).expect("valid");
        rewrite(&settings).expect("writable");
        assert_eq!(
            std::fs::read_to_string(&path).expect("there"),
            "# empty\nmaxmemory = 1048576\n"
        );
    }
}
