//! What a comparison found, as rows for people.

use std::fmt;

use super::{Spread, Table};
use crate::measure::measurement::{LoadFigures, Measurement};
use crate::scenario::Scenario;

/// All rounds of a scenario.
pub struct Compared {
    /// What was run.
    pub scenario: Scenario,
    /// `rounds[round][arm]`; at least one round.
    pub rounds: Vec<Vec<Measurement>>,
    /// The arm that others are compared with.
    pub base: usize,
    /// Growth of resident memory by filling in the keys, of each arm.
    pub bytes_per_key: Vec<Option<f64>>,
}

/// Which value is the best.
#[derive(Clone, Copy, Debug)]
pub enum Best {
    /// Of throughputs.
    Highest,
    /// Of costs.
    Lowest,
}

impl Compared {
    /// How many arms there are.
    pub fn arm_count(&self) -> usize {
        self.rounds.first().map_or(0, Vec::len)
    }

    /// The name of an arm.
    pub fn arm_name(&self, arm: usize) -> &str {
        &self.rounds[0][arm].server
    }

    /// A value of an arm over the rounds.
    pub fn spread(&self, arm: usize, value: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| value(&round[arm])))
    }

    /// A value of an arm divided by the base's of the same round.
    pub fn ratio(&self, arm: usize, value: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| value(&round[arm]) / value(&round[self.base])))
    }

    /// A value of an arm divided by another arm's of the same round.
    pub fn ratio_to(
        &self,
        arm: usize,
        other: usize,
        value: impl Fn(&Measurement) -> f64,
    ) -> Spread {
        Spread::of(self.rounds.iter().map(|round| value(&round[arm]) / value(&round[other])))
    }

    /// A value of an arm divided by that of the arm among `others` whose median is the highest, or
    /// the lowest; and its name.
    pub fn ratio_to_best(
        &self,
        arm: usize,
        others: &[usize],
        best: Best,
        value: impl Fn(&Measurement) -> f64,
    ) -> (Spread, &str) {
        let median = |arm: &usize| self.spread(*arm, &value).median;
        let by = |a: &&usize, b: &&usize| median(a).total_cmp(&median(b));
        let found = match best {
            Best::Highest => others.iter().max_by(by),
            Best::Lowest => others.iter().min_by(by),
        };
        let found = *found.expect("there is somebody to compare with");
        (self.ratio_to(arm, found, value), self.arm_name(found))
    }

    /// One table of several comparisons; scenarios with several loads have a row for each.
    pub fn table(all: &[Compared]) -> Table {
        let mut bases: Vec<&str> = all.iter().map(|one| one.arm_name(one.base)).collect();
        bases.dedup();
        // Where sections have bases of their own, it is the row whose ratios are 1.
        let base = if let [only] = bases[..] { only } else { "base" };
        let against = |what: &str| format!("{what} / {base}");
        let mut table = Table::new(&[
            "scenario",
            "server",
            "requests/s",
            "cpu us/op",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "p99.99 us",
            "max us",
            "bytes/key",
            &against("requests/s"),
            &against("cpu"),
            &against("p99.9"),
            "client cpus",
            "foreign cpus",
        ]);
        for compared in all {
            for arm in 0..compared.arm_count() {
                for load in 0..compared.scenario.plan.loads.len() {
                    table.row(compared.row(arm, load));
                }
            }
        }
        table
    }

    fn row(&self, arm: usize, load: usize) -> Vec<String> {
        let scenario = &self.scenario;
        let name = match scenario.plan.loads.len() {
            1 => scenario.name.clone(),
            _ => format!("{} {}", scenario.name, scenario.plan.loads[load].name),
        };
        let of_load = |value: fn(&LoadFigures) -> f64| {
            let spread = self.spread(arm, |measurement| value(&measurement.loads[load]));
            number(spread.median, 1)
        };
        let rate = move |measurement: &Measurement| measurement.loads[load].requests_per_second;
        let p999 = move |measurement: &Measurement| measurement.loads[load].p999_us;
        vec![
            name,
            self.arm_name(arm).to_string(),
            format!("{:.0}", self.spread(arm, rate)),
            format!("{:.3}", self.spread(arm, |m| m.server_cpu_us_per_request)),
            of_load(|figures| figures.p50_us),
            of_load(|figures| figures.p99_us),
            of_load(|figures| figures.p999_us),
            of_load(|figures| figures.p9999_us),
            of_load(|figures| figures.max_us),
            self.bytes_per_key[arm].map_or("-".into(), |bytes| format!("{bytes:.0}")),
            format!("{:.2}", self.ratio(arm, rate)),
            format!("{:.2}", self.ratio(arm, |m| m.server_cpu_us_per_request)),
            number(self.ratio(arm, p999).median, 2),
            format!("{:.2}", self.spread(arm, |m| m.client_cpus).median),
            format!("{:.2}", self.spread(arm, |m| m.foreign_cpus).highest),
        ]
    }
}

/// A number, or `-` for one that was not measured.
fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".into() }
}

/// What the comparison of a server with itself found.
#[derive(Clone)]
pub struct Control {
    scenario: String,
    server: String,
    rate: Spread,
    cpu: Spread,
    p999: Spread,
}

impl Control {
    /// Of a comparison of two arms with the same command.
    pub fn of(compared: &Compared) -> Control {
        Control {
            scenario: compared.scenario.name.clone(),
            server: compared.arm_name(0).to_string(),
            rate: compared.ratio(1, |m| m.requests_per_second),
            cpu: compared.ratio(1, |m| m.server_cpu_us_per_request),
            p999: compared.ratio(1, |m| m.loads[0].p999_us),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "A/A control, {} against itself, {}: requests/s {:.2}, cpu {:.2}, p99.9 {}. \
             Differences within these spreads are noise.",
            self.server,
            self.scenario,
            self.rate,
            self.cpu,
            if self.p999.median.is_finite() { format!("{:.2}", self.p999) } else { "-".into() }
        )
    }
}
