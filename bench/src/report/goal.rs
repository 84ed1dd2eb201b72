//! Goals: what was measured beside what was asked for.

use super::{Spread, Table};

/// One row.
pub struct Goal {
    /// What is measured.
    pub what: String,
    /// The measurement; its median is judged.
    pub measured: Spread,
    /// Digits after the point.
    pub digits: usize,
    /// What was asked for.
    pub limit: Limit,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Not above.
    AtMost(f64),
    /// Not below.
    AtLeast(f64),
}

impl Goal {
    /// Two digits.
    pub fn new(what: impl Into<String>, measured: Spread, limit: Limit) -> Goal {
        Goal { what: what.into(), measured, digits: 2, limit }
    }

    /// With other digits.
    pub fn digits(mut self, digits: usize) -> Goal {
        self.digits = digits;
        self
    }

    /// Whether the median keeps to the limit.
    pub fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.measured.median <= limit,
            Limit::AtLeast(limit) => self.measured.median >= limit,
        }
    }

    /// All of them, and how many are met.
    pub fn table(goals: &[Goal]) -> String {
        let met = goals.iter().filter(|goal| goal.is_met()).count();
        format!("{}{met} of {} met\n", Goal::rows(goals), goals.len())
    }

    /// A row for each.
    pub fn rows(goals: &[Goal]) -> Table {
        let mut table = Table::new(&["measurement", "", "asked for", "measured (lowest..highest)"]);
        for goal in goals {
            let digits = goal.digits;
            let asked = match goal.limit {
                Limit::AtMost(limit) => format!("<= {limit:.digits$}"),
                Limit::AtLeast(limit) => format!(">= {limit:.digits$}"),
            };
            table.row(vec![
                goal.what.clone(),
                if goal.is_met() { "met" } else { "MISSED" }.into(),
                asked,
                format!("{:.digits$}", goal.measured),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_judged() {
        let spread = || Spread::of([0.5, 0.8, 0.9]);
        let met = Goal::new("cpu", spread(), Limit::AtMost(0.8));
        let missed = Goal::new("rate", spread(), Limit::AtLeast(1.0)).digits(1);
        assert!(met.is_met() && !missed.is_met());
        let expected = "\
measurement          asked for  measured (lowest..highest)
cpu          met       <= 0.80           0.80 (0.50..0.90)
rate         MISSED     >= 1.0              0.8 (0.5..0.9)
1 of 2 met
";
        assert_eq!(Goal::table(&[met, missed]), expected);
    }

    #[test]
    fn what_is_not_a_number_is_missed() {
        assert!(!Goal::new("x", Spread::of([f64::NAN]), Limit::AtMost(1.0)).is_met());
    }
}
