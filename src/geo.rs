//! Places on Earth as numbers, and which of them lie in an area.
//!
//! A place is a cell of a grid of 2^26 by 2^26 cells over all longitudes and the latitudes of the
//! Mercator projection; its number interleaves the bits of both, the latitude's lowest first, so
//! that a square of cells is a range of numbers. The arithmetic is Redis' step by step: numbers,
//! cells searched and the order in which they are searched are the same, also where a search misses
//! something because its cells do not cover a pole.
//!
//! Sines are computed in software: what is stored must be the same to the last bit on every
//! replica, whatever its C library.

use std::f64::consts::PI;
use std::ops::Range;

/// Halvings of each axis in a number.
pub const STEPS_MAX: u32 = 26;
/// Bits of a number.
const BITS: u32 = 2 * STEPS_MAX;
const LONGITUDES: Span = Span { low: -180.0, high: 180.0 };
const LATITUDES: Span = Span { low: -85.05112878, high: 85.05112878 };
/// Latitudes of the public geohash.
const ALL_LATITUDES: Span = Span { low: -90.0, high: 90.0 };
/// In meters, as Redis has it.
const EARTH_RADIUS: f64 = 6372797.560856;
/// Half of the projection's width in meters.
const MERCATOR_MAX: f64 = 20037726.37;
/// The bits of latitudes.
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;

#[derive(Clone, Copy, Debug)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn size(self) -> f64 {
        self.high - self.low
    }

    fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// A place in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
}

/// A cell of a grid: so many halvings of each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    steps: u32,
}

/// What a cell covers.
#[derive(Clone, Copy, Debug)]
struct Covered {
    longitude: Span,
    latitude: Span,
}

/// `even` in the even bits, `odd` in the odd ones.
fn interleave(even: u32, odd: u32) -> u64 {
    let spread = |bits: u32| {
        let mut bits = u64::from(bits);
        bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
        bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
        bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
        (bits | bits << 1) & LATITUDE_BITS
    };
    spread(even) | spread(odd) << 1
}

/// The even bits together.
fn even_bits(bits: u64) -> u32 {
    let mut bits = bits & LATITUDE_BITS;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

impl Cell {
    /// The cell in which a place lies; that of 0 for one outside.
    fn of(place: Place, latitudes: Span, steps: u32) -> Cell {
        let is_inside = LONGITUDES.contains(place.longitude)
            && LATITUDES.contains(place.latitude)
            && latitudes.contains(place.latitude);
        if !is_inside {
            return Cell { bits: 0, steps };
        }
        let cells = (1u64 << steps) as f64;
        let along = |span: Span, at: f64| ((at - span.low) / span.size() * cells) as u32;
        let bits = interleave(along(latitudes, place.latitude), along(LONGITUDES, place.longitude));
        Cell { bits, steps }
    }

    fn covered(self) -> Covered {
        let cells = (1u64 << self.steps) as f64;
        let part = |span: Span, nth: u32| {
            let edge = |nth: u32| span.low + f64::from(nth) / cells * span.size();
            Span { low: edge(nth), high: edge(nth.wrapping_add(1)) }
        };
        Covered {
            longitude: part(LONGITUDES, even_bits(self.bits >> 1)),
            latitude: part(LATITUDES, even_bits(self.bits)),
        }
    }

    /// The cell so many cells (-1, 0 or 1) further to the east and to the north; beyond an edge it
    /// is at the other one.
    fn neighbor(self, east: i64, north: i64) -> Cell {
        let used = !0 >> (u64::BITS - 2 * self.steps);
        // The other axis' bits are ones, so that carries pass over them, or zeros, so that borrows
        // do.
        let moved = |own: u64, by: i64| {
            let (own, other) = (self.bits & own, !own & used);
            match by {
                0 => own,
                1 => own.wrapping_add(other + 1) & !other & used,
                _ => (own | other).wrapping_sub(other + 1) & !other & used,
            }
        };
        let bits = moved(!LATITUDE_BITS, east) | moved(LATITUDE_BITS, north);
        Cell { bits, steps: self.steps }
    }

    /// The numbers of the places in it.
    fn numbers(self) -> Range<u64> {
        let shift = BITS - 2 * self.steps;
        self.bits << shift..(self.bits + 1) << shift
    }
}

impl Place {
    /// A place, if numbers have room for it.
    pub fn new(longitude: f64, latitude: f64) -> Option<Place> {
        let is_inside = LONGITUDES.contains(longitude) && LATITUDES.contains(latitude);
        is_inside.then_some(Place { longitude, latitude })
    }

    /// Its number, of 52 bits.
    pub fn number(self) -> u64 {
        Cell::of(self, LATITUDES, STEPS_MAX).bits
    }

    /// The middle of the cell that a score stands for. Any score is some place.
    pub fn of_score(score: f64) -> Place {
        let covered = Cell { bits: to_bits(score), steps: STEPS_MAX }.covered();
        let middle = |covered: Span, all: Span| {
            ((covered.low + covered.high) / 2.0).min(all.high).max(all.low)
        };
        Place {
            longitude: middle(covered.longitude, LONGITUDES),
            latitude: middle(covered.latitude, LATITUDES),
        }
    }

    /// Its public geohash, whose latitudes go to the poles. Of eleven letters the last one is
    /// always that of 0: 52 bits are no more.
    pub fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = Cell::of(self, ALL_LATITUDES, STEPS_MAX).bits;
        std::array::from_fn(|nth| match nth {
            10 => LETTERS[0],
            nth => LETTERS[(bits >> (BITS as usize - 5 * (nth + 1)) & 31) as usize],
        })
    }

    /// Meters to another place, along a great circle.
    pub fn distance(self, other: Place) -> f64 {
        let half_east = libm::sin((radians(other.longitude) - radians(self.longitude)) / 2.0);
        if half_east == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let (here, there) = (radians(self.latitude), radians(other.latitude));
        let half_north = libm::sin((there - here) / 2.0);
        let chord =
            half_north * half_north + libm::cos(here) * libm::cos(there) * half_east * half_east;
        2.0 * EARTH_RADIUS * libm::asin(chord.sqrt())
    }
}

/// A score as bits, as C on x86 makes an unsigned integer of a double.
fn to_bits(score: f64) -> u64 {
    const TOP: f64 = (1u64 << 63) as f64;
    match score {
        score if score >= 2.0 * TOP => 0,
        score if (-TOP..0.0).contains(&score) => score as i64 as u64,
        score if score < 0.0 => 1 << 63,
        score => score as u64,
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (PI / 180.0)
}

fn latitude_distance(one: f64, other: f64) -> f64 {
    EARTH_RADIUS * (radians(other) - radians(one)).abs()
}

/// The form of an area, in meters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All within this distance.
    Circle(f64),
    /// Of this width and height.
    Box(f64, f64),
}

/// An area around a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// Its middle.
    pub center: Place,
    /// Its form.
    pub shape: Shape,
}

impl Area {
    /// How far a place is from its middle, in meters, if it lies in it.
    pub fn distance_within(&self, place: Place) -> Option<f64> {
        match self.shape {
            Shape::Circle(radius) => {
                let distance = self.center.distance(place);
                (distance <= radius).then_some(distance)
            }
            Shape::Box(width, height) => {
                let north = latitude_distance(place.latitude, self.center.latitude);
                if north > height / 2.0 {
                    return None;
                }
                let abeam = Place { longitude: self.center.longitude, ..place };
                if place.distance(abeam) > width / 2.0 {
                    return None;
                }
                Some(self.center.distance(place))
            }
        }
    }

    /// Ranges of numbers that cover it, in the order in which they are searched: the middle cell's,
    /// then those of its neighbors that are needed. Nine at most, no two the same.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let bounds = self.bounds();
        let reach = match self.shape {
            Shape::Circle(radius) => radius,
            Shape::Box(width, height) => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        let mut steps = steps_for(reach, self.center.latitude);
        let mut cell = Cell::of(self.center, LATITUDES, steps);
        let edge = |east, north| cell.neighbor(east, north).covered();
        // Near an edge of its cell an area may reach beyond the cell's neighbor.
        let is_too_small = edge(0, 1).latitude.high < bounds.latitude.high
            || edge(0, -1).latitude.low > bounds.latitude.low
            || edge(1, 0).longitude.high < bounds.longitude.high
            || edge(-1, 0).longitude.low > bounds.longitude.low;
        if steps > 1 && is_too_small {
            steps -= 1;
            cell = Cell::of(self.center, LATITUDES, steps);
        }
        let covered = cell.covered();
        let needed = |east: i64, north: i64| {
            steps < 2
                || !(north < 0 && covered.latitude.low < bounds.latitude.low
                    || north > 0 && covered.latitude.high > bounds.latitude.high
                    || east < 0 && covered.longitude.low < bounds.longitude.low
                    || east > 0 && covered.longitude.high > bounds.longitude.high)
        };
        const AROUND: [(i64, i64); 8] =
            [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut cells = vec![cell];
        for (east, north) in AROUND.into_iter().filter(|&(east, north)| needed(east, north)) {
            let neighbor = cell.neighbor(east, north);
            // Of two rows or columns the one to the north is the one to the south.
            if cells.len() < 2 || cells.last() != Some(&neighbor) {
                cells.push(neighbor);
            }
        }
        cells.into_iter().map(Cell::numbers).collect()
    }

    /// The least box of degrees around it.
    fn bounds(&self) -> Covered {
        let Place { longitude, latitude } = self.center;
        let (width, height) = match self.shape {
            Shape::Circle(radius) => (radius, radius),
            Shape::Box(width, height) => (width / 2.0, height / 2.0),
        };
        let north = degrees(height / EARTH_RADIUS);
        let side = if latitude < 0.0 { latitude - north } else { latitude + north };
        let east = degrees(width / EARTH_RADIUS / libm::cos(radians(side)));
        Covered {
            longitude: Span { low: longitude - east, high: longitude + east },
            latitude: Span { low: latitude - north, high: latitude + north },
        }
    }
}

/// How many halvings make cells that are about as large as an area that reaches so many meters.
fn steps_for(reach: f64, latitude: f64) -> u32 {
    if reach == 0.0 {
        return STEPS_MAX;
    }
    let (mut reach, mut steps) = (reach, 1i32);
    while reach < MERCATOR_MAX {
        reach *= 2.0;
        steps += 1;
    }
    // Larger than needed, so that nine of them nearly always do; cells are narrower towards the
    // poles.
    steps -= 2 + i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    steps.clamp(1, STEPS_MAX as i32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_interleaved_and_taken_apart() {
        for (even, odd) in [(0, 0), (1, 0), (0, 1), (0x3ff_ffff, 0x155_5555), (u32::MAX, 7)] {
            let bits = interleave(even, odd);
            assert_eq!((even_bits(bits), even_bits(bits >> 1)), (even, odd));
        }
        assert_eq!(interleave(0b11, 0b01), 0b0111);
    }

    #[test]
    fn neighbors_wrap_around() {
        let corner = Cell { bits: 0, steps: 2 };
        assert_eq!(corner.neighbor(-1, 0).bits, interleave(0, 3));
        assert_eq!(corner.neighbor(0, -1).bits, interleave(3, 0));
        assert_eq!(corner.neighbor(1, 1).bits, interleave(1, 1));
        let other = Cell { bits: interleave(3, 3), steps: 2 };
        assert_eq!(other.neighbor(1, 1), corner);
        assert_eq!(other.neighbor(0, 0), other);
    }

    #[test]
    fn places_come_back() {
        let palermo = Place::new(13.361389, 38.115556).expect("inside");
        assert_eq!(palermo.number(), 3479099956230698);
        let back = Place::of_score(palermo.number() as f64);
        assert!(palermo.distance(back) < 1.0);
        assert_eq!(&back.geohash(), b"sqc8b49rny0");
        assert_eq!(Place::new(180.1, 0.0), None);
        assert_eq!(Place::new(0.0, 85.1), None);
        assert_eq!(Place::new(f64::NAN, 0.0), None);
    }

    #[test]
    fn any_score_is_a_place() {
        for score in [-1.0, -1e300, f64::NEG_INFINITY, f64::INFINITY, 1e300, 4503599627370496.0] {
            let place = Place::of_score(score);
            assert!(Place::new(place.longitude, place.latitude).is_some(), "{score}");
        }
        assert_eq!((to_bits(-1.0), to_bits(1e300), to_bits(3.9)), (u64::MAX, 0, 3));
        assert_eq!((to_bits(-1e300), to_bits(9.3e18)), (1 << 63, 9_300_000_000_000_000_000));
    }

    #[test]
    fn a_huge_area_is_searched_once() {
        let center = Place::new(1.0, 1.0).expect("inside");
        for shape in [Shape::Circle(2e7), Shape::Circle(f64::INFINITY), Shape::Box(4e7, 4e7)] {
            let mut ranges = Area { center, shape }.ranges();
            ranges.sort_by_key(|range| range.start);
            assert_eq!(ranges.len(), 4, "{shape:?}");
            assert_eq!((ranges[0].start, ranges[3].end), (0, 1 << BITS));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
