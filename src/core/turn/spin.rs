//! When a core looks for work before it sleeps: when that has lately spared it a sleep.
//!
//! A sleep costs a wake, which is slow where a cpu has gone to sleep too. A core whose sleeps are
//! short again and again looks for work first, for [`SPIN_AUTO`] at most. It stops when that finds
//! nothing, when others want the cpu, and when it is idle: a sleep that lasts longer ends the row.

use crate::settings::values::Spin;
use std::time::Duration;

/// How long it looks.
const SPIN_AUTO: Duration = Duration::from_micros(20);

/// A sleep that a look might have spared.
const SHORT: Duration = Duration::from_micros(30);

/// Short sleeps in a row after which it looks.
const SHORT_MIN: u32 = 32;

/// The most that are demanded when looking was in vain before.
const SHORT_MIN_MAX: u32 = 1 << 14;

/// What a look that found something is worth, at most in all.
const CREDIT_MAX: u32 = 64;

/// What a look in vain costs: one in four may be.
const VAIN_COSTS: u32 = 3;

/// Ticks without looking after others wanted the cpu.
const PRESSED_TICKS: u32 = 10;

/// Whether a core looks for work before it sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Spinner {
    short_row: u32,
    short_wanted: u32,
    /// It looks while there is some.
    credit: u32,
    pressed_ticks: u32,
}

impl Default for Spinner {
    fn default() -> Spinner {
        Spinner { short_row: 0, short_wanted: SHORT_MIN, credit: 0, pressed_ticks: 0 }
    }
}

impl Spinner {
    /// How long to look before this sleep.
    pub fn time(&self, setting: Spin) -> Duration {
        match setting {
            Spin::Micros(us) => Duration::from_micros(us.into()),
            Spin::Auto if self.credit > 0 => SPIN_AUTO,
            Spin::Auto => Duration::ZERO,
        }
    }

    /// A look has ended.
    pub fn looked(&mut self, found: bool) {
        if found {
            self.credit = (self.credit + 1).min(CREDIT_MAX);
            self.short_wanted = SHORT_MIN;
        } else if self.credit > 0 {
            self.credit = self.credit.saturating_sub(VAIN_COSTS);
            if self.credit == 0 {
                self.short_row = 0;
                self.short_wanted = (self.short_wanted * 2).min(SHORT_MIN_MAX);
            }
        }
    }

    /// A sleep has ended.
    pub fn slept(&mut self, time: Duration) {
        if time > SHORT {
            self.short_row = 0;
            return;
        }
        self.short_row += 1;
        if self.short_row >= self.short_wanted && self.credit == 0 && self.pressed_ticks == 0 {
            self.credit = CREDIT_MAX / 2;
        }
    }

    /// A tick has passed. Did others want this cpu?
    pub fn look(&mut self, is_pressed: bool) {
        if is_pressed {
            self.credit = 0;
            self.short_row = 0;
            self.pressed_ticks = PRESSED_TICKS;
        }
        self.pressed_ticks = self.pressed_ticks.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(spinner: &Spinner) -> bool {
        !spinner.time(Spin::Auto).is_zero()
    }

    fn sleep_shortly(spinner: &mut Spinner, times: u32) {
        (0..times).for_each(|_| spinner.slept(Duration::from_micros(10)));
    }

    #[test]
    fn it_looks_after_a_row_of_short_sleeps_and_as_long_as_it_finds() {
        let mut spinner = Spinner::default();
        sleep_shortly(&mut spinner, SHORT_MIN - 1);
        assert!(!looks(&spinner));
        spinner.slept(Duration::from_millis(1));
        sleep_shortly(&mut spinner, SHORT_MIN - 1);
        assert!(!looks(&spinner), "a long sleep ends the row");
        sleep_shortly(&mut spinner, 1);
        assert!(looks(&spinner));
        for n in 0..1000 {
            spinner.looked(n % 5 > 0);
        }
        assert!(looks(&spinner));
        for _ in 0..CREDIT_MAX {
            spinner.looked(false);
        }
        assert!(!looks(&spinner), "in vain");
        sleep_shortly(&mut spinner, SHORT_MIN);
        assert!(!looks(&spinner), "more is demanded now");
        sleep_shortly(&mut spinner, SHORT_MIN);
        assert!(looks(&spinner));
    }

    #[test]
    fn it_makes_room_for_others() {
        let mut spinner = Spinner::default();
        sleep_shortly(&mut spinner, SHORT_MIN);
        assert!(looks(&spinner));
        spinner.look(true);
        sleep_shortly(&mut spinner, 10 * SHORT_MIN);
        assert!(!looks(&spinner));
        (0..PRESSED_TICKS).for_each(|_| spinner.look(false));
        sleep_shortly(&mut spinner, SHORT_MIN);
        assert!(looks(&spinner));
    }

    #[test]
    fn a_number_is_obeyed() {
        let mut spinner = Spinner::default();
        assert_eq!(spinner.time(Spin::Micros(0)), Duration::ZERO);
        assert_eq!(spinner.time(Spin::Micros(70)), Duration::from_micros(70));
        spinner.looked(false);
        assert_eq!(spinner.time(Spin::Auto), Duration::ZERO);
    }
}
