//! What a measurement was taken on: printed above every table, because a number without it means
//! nothing.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The machine, the kernel, the commit, the day, the command.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// `machine`.
    pub kind: &'static str,
    /// Of the processor.
    pub processor: String,
    /// Cpus that this process may use.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Of the working directory; `unknown` outside a repository, `+` for changes that are not
    /// committed.
    pub commit: String,
    /// UTC.
    pub date: String,
    /// The command line of this tool.
    pub command: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Machine {
        let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = information
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Machine {
            kind: "machine",
            processor: processor.to_string(),
            cpus: core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
            kernel: kernel.trim().to_string(),
            commit: git(&["describe", "--always", "--dirty=+", "--exclude=*"]),
            date: date(seconds),
            command: command_line(std::env::args()),
        }
    }

    /// Two lines for people.
    pub fn text(&self) -> String {
        format!(
            "{}, {} cpus, Linux {}, commit {}, {}\n{}",
            self.processor, self.cpus, self.kernel, self.commit, self.date, self.command
        )
    }
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_string()
        }
        _ => "unknown".into(),
    }
}

/// Arguments as a shell takes them.
pub fn command_line(arguments: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted = arguments.into_iter().map(|argument| {
        let argument = argument.as_ref();
        let plain = |letter: char| letter.is_alphanumeric() || "-_./:,+%@".contains(letter);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.to_string()
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<String>>().join(" ")
}

/// `2026-11-21` of the seconds since 1970, by the proleptic Gregorian calendar (Hinnant,
/// "chrono-compatible low-level date algorithms").
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_219_199), "2026-11-20");
        assert_eq!(date(1_795_219_200), "2026-11-21");
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let arguments = ["a", "--server", "redis=redis-server --save ''", ""];
        assert_eq!(command_line(arguments), "a --server 'redis=redis-server --save '\\'''\\''' ''");
    }

    #[test]
    fn this_machine_has_a_name() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && !machine.kernel.is_empty());
    }
}
