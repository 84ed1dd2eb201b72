//! What new sessions begin with, shared by all cores, and the thread that sees the files change.
//!
//! A core takes the configuration once per connection that it accepts; nothing else is shared.
//! Files are looked at by a thread of their own, because a file system may take its time.

use super::TlsSettings;
use super::config::{self, Refusal};
use crate::limits::TLS_FILES_INTERVAL;
use rustls::{ClientConfig, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// The configuration in force.
#[derive(Debug)]
pub struct Front {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: TlsSettings,
    config: Arc<ServerConfig>,
    /// For links to other nodes, where they speak TLS.
    client: Option<Arc<ClientConfig>>,
    /// What the files looked like when they were read.
    read: Looks,
}

/// What files look like from outside: for each its path, device, number, size, and times of change.
type Looks = Vec<(PathBuf, Option<[i64; 7]>)>;

impl Front {
    /// Reads the files for the first time.
    /// Errors: the first that does not do.
    pub fn open(settings: &TlsSettings) -> Result<Arc<Front>, Refusal> {
        let read = looks(settings);
        let (config, client) = load(settings)?;
        let state = Mutex::new(State { settings: settings.clone(), config, client, read });
        Ok(Arc::new(Front { state }))
    }

    /// What a new session begins with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.locked().config.clone()
    }

    /// What a session with another node begins with, where links speak TLS.
    pub fn client_config(&self) -> Option<Arc<ClientConfig>> {
        self.locked().client.clone()
    }

    /// Takes other settings, whose files are read, and read anew if they are the same.
    /// Errors: the first that does not do; what was in force remains.
    pub fn change(&self, settings: &TlsSettings) -> Result<(), Refusal> {
        let read = looks(settings);
        let (config, client) = load(settings)?;
        *self.locked() = State { settings: settings.clone(), config, client, read };
        Ok(())
    }

    /// Starts the thread that reads the files again when they change, for as long as somebody has
    /// the front. Errors: no thread can be started.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let front = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("tls-files".into());
        thread.spawn(move || watch(&front)).map(|_| ())
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Looks at the files. When they are others than those read, and the same as at the `last`
    /// look, so that nobody is in the middle of replacing them, they are read.
    fn look(&self, last: &mut Looks) {
        let settings = self.locked().settings.clone();
        let now = looks(&settings);
        let is_new = self.locked().read != now;
        let is_settled = std::mem::replace(last, now.clone()) == now;
        if !is_new || !is_settled {
            return;
        }
        let loaded = load(&settings);
        let mut state = self.locked();
        if state.settings != settings {
            // CONFIG SET was quicker.
            return;
        }
        state.read = now;
        match loaded {
            Ok((config, client)) => {
                (state.config, state.client) = (config, client);
                tracing::info!("certificates are read again: their files have changed");
            }
            Err((name, cause)) => tracing::error!(
                "{name}: {cause}: the files have changed and cannot be used; what was read before stays in force"
            ),
        }
    }
}

type Loaded = (Arc<ServerConfig>, Option<Arc<ClientConfig>>);

fn load(settings: &TlsSettings) -> Result<Loaded, Refusal> {
    let client = settings.cluster.then(|| config::load_client(settings)).transpose()?;
    Ok((config::load(settings)?, client))
}

fn watch(front: &Weak<Front>) {
    let mut last = Looks::new();
    loop {
        std::thread::park_timeout(TLS_FILES_INTERVAL);
        let Some(front) = front.upgrade() else { return };
        front.look(&mut last);
    }
}

fn looks(settings: &TlsSettings) -> Looks {
    let files = [&settings.cert_file, &settings.key_file, &settings.ca_cert_file];
    let mut paths: Vec<PathBuf> =
        files.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if !settings.ca_cert_dir.is_empty() {
        let entries = std::fs::read_dir(&settings.ca_cert_dir);
        let entries = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let mut entries: Vec<PathBuf> = entries.collect();
        entries.sort();
        paths.extend(entries);
    }
    paths.into_iter().map(|path| (path.clone(), look_of(&path))).collect()
}

/// A file that is replaced by another of the same size within the clock's tick has another number.
fn look_of(path: &Path) -> Option<[i64; 7]> {
    let file = std::fs::metadata(path).ok()?;
    let number = [file.dev() as i64, file.ino() as i64, file.size() as i64];
    let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
    let mut look = [0; 7];
    look[..3].copy_from_slice(&number);
    look[3..].copy_from_slice(&times);
    Some(look)
}
