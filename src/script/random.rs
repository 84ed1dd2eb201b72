//! `math.random` as Redis has it; a script that runs again gets the same numbers again.

use super::arguments::Given;
use super::raise::{Results, function};
use mlua::{Lua, MultiValue, Table, Value};
use std::cell::Cell;
use std::rc::Rc;

/// A generator of 48 bits, as C's lrand48.
#[derive(Clone, Default)]
pub struct Random(Rc<Cell<u64>>);

impl Random {
    /// Begins anew.
    pub fn seed(&self, seed: i32) {
        self.0.set(u64::from(seed as u32) << 16 | 0x330e);
    }

    fn next(&self) -> f64 {
        const MASK: u64 = (1 << 48) - 1;
        let state = self.0.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & MASK;
        self.0.set(state);
        let greatest = i32::MAX as u64;
        ((state >> 17) % greatest) as f64 / greatest as f64
    }

    /// Puts its functions into the table `math`. Errors: no memory.
    pub fn install(&self, lua: &Lua, math: &Table) -> mlua::Result<()> {
        let random = self.clone();
        math.raw_set("random", function(lua, move |_, values| random.between(values))?)?;
        let random = self.clone();
        let seed = move |_: &Lua, values| {
            random.seed(Given::new(values).integer(1)? as i32);
            Ok(MultiValue::new())
        };
        math.raw_set("randomseed", function(lua, seed)?)
    }

    fn between(&self, values: MultiValue) -> Results {
        let chance = self.next();
        let given = Given::new(values);
        let number = match given.values.len() {
            0 => chance,
            1 => {
                let high = given.integer(1)?;
                if high < 1 {
                    return Err(given.fault(1, "interval is empty"));
                }
                (chance * high as f64).floor() + 1.0
            }
            2 => {
                let (low, high) = (given.integer(1)?, given.integer(2)?);
                if low > high {
                    return Err(given.fault(2, "interval is empty"));
                }
                (chance * (high as f64 - low as f64 + 1.0)).floor() + low as f64
            }
            _ => return Err(super::raise::Fault::placed("wrong number of arguments")),
        };
        Ok(MultiValue::from_iter([Value::Number(number)]))
    }
}
