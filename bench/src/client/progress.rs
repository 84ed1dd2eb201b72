//! One line on standard error that tells how a run goes. Only on a terminal, or when asked for.

use std::io::{IsTerminal, Write};

use super::run::Sample;

/// The line.
pub struct Progress {
    shown: bool,
    title: String,
    /// The second that was shown last.
    last: u64,
    width: usize,
}

impl Progress {
    /// `forced` shows it on what is no terminal as well.
    pub fn new(forced: bool) -> Progress {
        let shown = forced || std::io::stderr().is_terminal();
        Progress { shown, title: String::new(), last: u64::MAX, width: 0 }
    }

    /// What runs now.
    pub fn title(&mut self, title: impl Into<String>) {
        self.title = title.into();
        self.last = u64::MAX;
    }

    /// Shows a sample, at most once a second.
    pub fn show(&mut self, sample: &Sample, length: Option<f64>) {
        if !self.shown || sample.at as u64 == self.last {
            return;
        }
        self.last = sample.at as u64;
        let line = line(&self.title, sample, length);
        let pad = self.width.saturating_sub(line.len());
        self.width = line.len();
        // A line that cannot be written is no reason to stop measuring.
        let _ = write!(std::io::stderr(), "\r{line}{:pad$}", "");
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.width > 0 {
            let _ = write!(std::io::stderr(), "\r{:width$}\r", "", width = self.width);
            self.width = 0;
        }
    }
}

fn line(title: &str, sample: &Sample, length: Option<f64>) -> String {
    let of = length.map(|length| format!(" of {length:.0}")).unwrap_or_default();
    format!(
        "{title}  {:.0}{of} s  {:.0} requests/s  longest {:.2} ms",
        sample.at,
        sample.rate,
        sample.longest_us / 1e3
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line() {
        let sample = Sample { at: 3.1, rate: 123_456.4, longest_us: 2345.0 };
        assert_eq!(
            line("get P=1 redis", &sample, Some(10.0)),
            "get P=1 redis  3 of 10 s  123456 requests/s  longest 2.35 ms"
        );
        assert!(line("fill", &sample, None).contains("  3 s  "));
    }
}
