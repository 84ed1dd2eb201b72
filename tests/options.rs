//! The real program refuses with one line, the right exit code, and says what to do.

use ringraft::settings::table::TABLE;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use tempfile::TempDir;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringraft"))
}

/// Runs the program in a folder, with options separated by blanks, until it ends.
fn run(folder: &Path, line: &str) -> Output {
    let arguments = line.split_ascii_whitespace();
    program().current_dir(folder).args(arguments).output().expect("the program starts")
}

/// Runs the program and expects a refusal: exit code and one line, whose beginning is returned
/// without the program's name.
fn refusal(folder: &Path, line: &str, code: i32) -> String {
    refused(&run(folder, line), line, code)
}

fn refused(output: &Output, line: &str, code: i32) -> String {
    let errors = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
    assert!(output.stdout.is_empty(), "{line}");
    assert_eq!(errors.lines().count(), 1, "{line}: {errors}");
    let text =
        errors.trim_end().strip_prefix("ringraft: ").expect("begins with the program's name");
    text.to_string()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    listener.local_addr().expect("bound").port()
}

#[test]
fn wrong_options_end_with_2() {
    let folder = scratch();
    for (line, start) in [
        ("--prot 1", "unexpected argument '--prot' found; did you mean --port?"),
        ("--port", "a value is required for '--port <N>'"),
        ("--port 70000", "option --port '70000': argument must be between 0 and 65535 inclusive"),
        ("--shards 0", "option --shards '0': argument must be between 1 and 1024 inclusive"),
        ("--shards 1025", "option --shards '1025': "),
        ("--mode cache --fsync always", "fsync = always contradicts another setting: mode cache"),
        ("--segment-size 1mb", "option --segment-size '1mb': argument must be between 8388608 and"),
        ("--cores 0-4000", "option --cores 0-4000: cpu "),
        ("--config missing.toml", "missing.toml: No such file"),
        ("snapshot", "say what to do"),
    ] {
        let text = refusal(folder.path(), line, 2);
        assert!(text.starts_with(start), "{line}: {text}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing was created");
}

#[test]
fn wrong_files_end_with_2() {
    let folder = scratch();
    for (text, refused) in [
        ("prot = 1\n", "r.toml, line 1: prot: no such setting (ringraft --help lists them)"),
        ("\nmaxmemory = 'lots'\n", "r.toml, line 2: maxmemory: argument must be a memory value"),
        ("port = true\n", "r.toml, line 1: port: the value is a boolean, not text or a number"),
    ] {
        fs::write(folder.path().join("r.toml"), text).expect("writable");
        assert_eq!(refusal(folder.path(), "--config r.toml", 2), refused);
    }
    fs::write(folder.path().join("r.toml"), "port 1\n").expect("writable");
    let text = refusal(folder.path(), "--config r.toml", 2);
    assert!(text.starts_with("r.toml, line 1: not TOML: "), "{text}");
}

#[test]
fn help_and_version_end_with_0() {
    let folder = scratch();
    for (line, part) in
        [("--help", "--maxmemory-policy"), ("-h", "Example"), ("--version", "ringraft ")]
    {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(output.stderr.is_empty(), "{line}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{line}");
    }
}

#[test]
fn a_directory_in_use_is_refused_by_name() {
    let folder = scratch();
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("writable");
    fs::write(data.join("lock"), "123\n").expect("writable");
    let lock = File::open(data.join("lock")).expect("there");
    lock.lock().expect("nobody holds it");
    let text = refusal(folder.path(), "", 1);
    assert_eq!(
        text,
        "directory ./data is in use by process 123: stop it or choose another directory with --dir"
    );
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let folder = scratch();
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("writable");
    fs::write(data.join("cluster.json"), "{\"format\": 9}").expect("writable");
    let text = refusal(folder.path(), "", 1);
    assert!(
        text.starts_with(
            "./data/cluster.json has format 9, this ringraft reads formats up to 2: use the newer"
        ),
        "{text}"
    );
    fs::write(data.join("cluster.json"), "{\"format\": 1").expect("writable");
    let text = refusal(folder.path(), "", 1);
    assert!(text.starts_with("./data/cluster.json is damaged ("), "{text}");
}

/// That another shard count is refused once a start has succeeded:
/// `starts::another_shard_count_is_refused` of the black-box tests.
#[test]
fn a_refused_first_start_decides_no_shard_count() {
    let folder = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let port = taken.local_addr().expect("bound").port();
    for shards in [3, 2] {
        let options = format!("--shards {shards} --segment-size 8mb --port {port}");
        let text = refusal(folder.path(), &options, 1);
        assert!(text.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{text}");
        let remedy = "another process listens there: stop it or choose another port with --port";
        assert!(text.ends_with(remedy), "{text}");
    }
}

#[test]
fn a_file_in_the_way_is_refused() {
    let folder = scratch();
    fs::write(folder.path().join("data"), "").expect("writable");
    let text = refusal(folder.path(), "", 1);
    assert!(text.starts_with("cannot create directory ./data: "), "{text}");
    assert!(
        text.ends_with("a file is in the way: remove it or choose another with --dir"),
        "{text}"
    );
}

/// Makes a command run without root's rights: nobody runs it when this is root. Its program must be
/// a copy in the folder, which nobody can reach.
fn without_rights(folder: &Path, command: &mut Command) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("ours");
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    if status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        command.uid(65534).gid(65534);
    }
}

fn copy_of_program(folder: &Path) -> PathBuf {
    let copy = folder.join("ringraft");
    fs::copy(env!("CARGO_BIN_EXE_ringraft"), &copy).expect("copied");
    copy
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let folder = scratch();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("writable");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("ours");
    let mut command = Command::new(copy_of_program(folder.path()));
    command.current_dir(folder.path()).args(["--dir", "closed"]);
    without_rights(folder.path(), &mut command);
    let text = refused(&command.output().expect("the program starts"), "--dir closed", 1);
    assert!(
        text.starts_with(
            "cannot write to directory closed: Permission denied (os error 13): give this user"
        ),
        "{text}"
    );
}

#[test]
fn too_little_locked_memory_is_refused() {
    let folder = scratch();
    let copy = copy_of_program(folder.path());
    let mut command = Command::new("sh");
    let script = format!("ulimit -l 64; exec {} --mode cache", copy.display());
    command.current_dir(folder.path()).args(["-c", &script]);
    without_rights(folder.path(), &mut command);
    let text = refused(&command.output().expect("the program starts"), &script, 1);
    assert!(text.starts_with("locked memory is limited to 64 KiB, "), "{text}");
    assert!(text.contains("raise the locked-memory limit (ulimit -l"), "{text}");
}

#[test]
fn a_log_file_that_cannot_be_written_is_refused() {
    let folder = scratch();
    let text = refusal(folder.path(), "--log-file missing/log", 1);
    assert!(text.starts_with("cannot write log file missing/log: No such file"), "{text}");
}

/// Waits until a log holds a text; the server must not end before.
fn wait_for(log: &Path, text: &str, server: &mut Child) {
    while !fs::read_to_string(log).unwrap_or_default().contains(text) {
        assert!(server.try_wait().expect("ours").is_none(), "it ended before '{text}'");
        std::thread::yield_now();
    }
}

fn send(signal: &str, server: &Child) {
    let kill = Command::new("kill").args([signal, &server.id().to_string()]).status();
    assert!(kill.expect("kill exists").success());
}

#[test]
fn a_cache_touches_no_disk_rotates_its_log_and_stops_in_order() {
    let folder = scratch();
    let port = free_port();
    let log = folder.path().join("log");
    let mut server = program()
        .current_dir(folder.path())
        .args(["--mode", "cache", "--log-file", "log", "--port", &port.to_string()])
        .spawn()
        .expect("the program starts");
    wait_for(&log, "ready on", &mut server);
    fs::rename(&log, folder.path().join("log.1")).expect("ours");
    send("-HUP", &server);
    while !log.exists() {
        std::thread::yield_now();
    }
    send("-TERM", &server);
    assert_eq!(server.wait().expect("ours").code(), Some(0));
    assert!(fs::read_to_string(&log).expect("opened again").contains("SIGTERM: stopping"));
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// The rows of the table in docs/operations.md, made from the settings.
fn option_rows() -> String {
    let mut text = String::new();
    for row in TABLE.iter().filter(|row| row.is_option()) {
        let others: Vec<String> = row.names().skip(1).map(|name| format!(", `{name}`")).collect();
        let default = row.default_text();
        let default = if default.is_empty() { "none".to_string() } else { format!("`{default}`") };
        let changes = if row.at_run_time { "yes" } else { "no" };
        let names = format!("`{}`{}", row.name, others.concat());
        text += &format!("| {names} | {default} | {changes} | {} |\n", row.help);
    }
    text
}

#[test]
fn the_operations_page_lists_every_option() {
    const HEAD: &str = "|---|---|---|---|\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let start = page.find(HEAD).expect("the page has the table") + HEAD.len();
    let end = start + page[start..].find("\n\n").expect("the table ends") + 1;
    let rows = option_rows();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page[..start].to_string() + &rows + &page[end..]).expect("writable");
    } else {
        assert_eq!(&page[start..end], rows, "run it again with UPDATE=1");
    }
}
