//! Which places lie in an area: GEOSEARCH, and GEORADIUS and its kin, which are older.

use super::geo::{place_at, show_distance, show_place, unit_at};
use super::refusal::{Outcome, Refusal};
use super::zset_range::store_at;
use super::{Arity, Call, Command, Group, Keys, Search, read, write};
use crate::geo::{Area, Place, Shape};
use crate::numbers::parse_float;
use crate::resp::reply::Reply;
use Arity::AtLeast;
use ringraft_shards::keyspace::{Edit, View};
use ringraft_shards::value::sorted_set::SortedSet;
use std::cmp::Ordering;

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    read("geosearch", AtLeast(7), Keys::FIRST, geosearch).about(
        Group::Geo,
        "6.2.0",
        "Returns the members in an area.",
    ),
    write("geosearchstore", AtLeast(8), Keys::TWO, geosearchstore).grows().about(
        Group::Geo,
        "6.2.0",
        "Stores the members in an area.",
    ),
    radius("georadius", AtLeast(6), georadius, "Returns or stores the members around a place."),
    radius(
        "georadiusbymember",
        AtLeast(5),
        georadiusbymember,
        "Returns or stores the members around one of them.",
    ),
    read("georadius_ro", AtLeast(6), Keys::FIRST, georadius_ro).about(
        Group::Geo,
        "3.2.10",
        "Returns the members around a place.",
    ),
    read("georadiusbymember_ro", AtLeast(5), Keys::FIRST, georadiusbymember_ro).about(
        Group::Geo,
        "3.2.10",
        "Returns the members around one of them.",
    ),
];

const fn radius(
    name: &'static str,
    arity: Arity,
    run: fn(&Call<'_>, &mut Edit<'_>, &mut Reply<'_>) -> Outcome,
    summary: &'static str,
) -> Command {
    let keys = Keys::FIRST.and(Search::RadiusStore);
    write(name, arity, keys, run).grows().about(Group::Geo, "3.2.0", summary)
}

/// How the command is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEOSEARCH: the area is an option.
    Search,
    /// GEOSEARCHSTORE: a destination goes before the key.
    SearchStore,
    /// GEORADIUS: a place and a radius follow the key.
    AroundPlace,
    /// GEORADIUSBYMEMBER: a member and a radius.
    AroundMember,
}

impl Form {
    fn searches(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }

    /// The argument that is the key.
    fn key(self) -> usize {
        if self == Form::SearchStore { 2 } else { 1 }
    }

    /// Where the options begin.
    fn options(self) -> usize {
        match self {
            Form::Search => 2,
            Form::SearchStore => 3,
            Form::AroundPlace => 6,
            Form::AroundMember => 5,
        }
    }
}

/// What the middle of an area was said to be.
#[derive(Clone, Copy, PartialEq)]
enum Center {
    Unsaid,
    Place(Place),
    Member(Place),
    /// A member of nothing.
    Nowhere,
}

/// In which order members are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    Nearest,
    Farthest,
}

/// Where the result goes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Destination {
    /// The argument that is its key.
    at: usize,
    /// Do distances become the scores?
    distances: bool,
}

/// A request.
struct Asked<'v> {
    form: Form,
    set: Option<SortedSet<'v>>,
    center: Center,
    shape: Option<Shape>,
    /// Meters of the unit in which distances are wanted.
    unit: f64,
    order: Order,
    count: Option<usize>,
    any: bool,
    with_distance: bool,
    with_number: bool,
    with_place: bool,
    destination: Option<Destination>,
}

/// A member in the area.
struct Found<'v> {
    member: &'v [u8],
    score: f64,
    place: Place,
    /// In meters.
    distance: f64,
}

const NO_PLACE: Refusal = Refusal::text("ERR could not decode requested zset member");

impl<'v> Asked<'v> {
    fn of(call: &Call<'_>, view: &View<'v>, form: Form) -> Result<Asked<'v>, Refusal> {
        let mut asked = Asked {
            form,
            set: call.sorted_set(form.key(), view)?,
            center: Center::Unsaid,
            shape: None,
            unit: 1.0,
            order: Order::Any,
            count: None,
            any: false,
            with_distance: false,
            with_number: false,
            with_place: false,
            destination: None,
        };
        match form {
            Form::Search => {}
            Form::SearchStore => asked.destination = Some(Destination { at: 1, distances: false }),
            Form::AroundPlace => {
                asked.center = Center::Place(place_at(call, 2)?);
                asked.take_radius(call, 4)?;
            }
            Form::AroundMember => {
                asked.center = asked.member(call.at(2))?;
                // Without a key the radius is not looked at.
                if asked.set.is_some() {
                    asked.take_radius(call, 3)?;
                }
            }
        }
        let mut i = form.options();
        while i < call.count() {
            i += asked.take_option(call, i)?;
        }
        asked.check(call)?;
        Ok(asked)
    }

    /// Where a member is.
    fn member(&self, member: &[u8]) -> Result<Center, Refusal> {
        let Some(set) = self.set else { return Ok(Center::Nowhere) };
        let score = set.score(member).ok_or(NO_PLACE)?;
        Ok(Center::Member(Place::of_score(score)))
    }

    /// Reads a radius and its unit.
    fn take_radius(&mut self, call: &Call<'_>, i: usize) -> Result<(), Refusal> {
        let radius = parse_float(call.at(i)).ok_or(Refusal::text("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(Refusal::text("ERR radius cannot be negative"));
        }
        self.unit = unit_at(call, i + 1)?;
        self.shape = Some(Shape::Circle(radius * self.unit));
        Ok(())
    }

    /// Reads width, height and their unit.
    fn take_box(&mut self, call: &Call<'_>, i: usize) -> Result<(), Refusal> {
        let width = parse_float(call.at(i)).ok_or(Refusal::text("ERR need numeric width"))?;
        let height = parse_float(call.at(i + 1)).ok_or(Refusal::text("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(Refusal::text("ERR height or width cannot be negative"));
        }
        self.unit = unit_at(call, i + 2)?;
        self.shape = Some(Shape::Box(width * self.unit, height * self.unit));
        Ok(())
    }

    /// Reads the option at argument `i`. How many arguments is it?
    fn take_option(&mut self, call: &Call<'_>, i: usize) -> Result<usize, Refusal> {
        let behind = call.count() - i - 1;
        let is = |word: &str, takes: usize| behind >= takes && call.arguments.is(i, word);
        let searches = self.form.searches();
        match () {
            () if is("withdist", 0) => self.with_distance = true,
            () if is("withhash", 0) => self.with_number = true,
            () if is("withcoord", 0) => self.with_place = true,
            () if is("any", 0) => self.any = true,
            () if is("asc", 0) => self.order = Order::Nearest,
            () if is("desc", 0) => self.order = Order::Farthest,
            () if is("count", 1) => {
                let count = usize::try_from(call.integer(i + 1)?).ok().filter(|&count| count > 0);
                self.count = Some(count.ok_or(Refusal::text("ERR COUNT must be > 0"))?);
                return Ok(2);
            }
            () if self.form == Form::SearchStore && is("storedist", 0) => {
                self.destination = Some(Destination { at: 1, distances: true });
            }
            () if !searches && call.command.flags.write && is("store", 1) => {
                self.destination = Some(Destination { at: i + 1, distances: false });
                return Ok(2);
            }
            () if !searches && call.command.flags.write && is("storedist", 1) => {
                self.destination = Some(Destination { at: i + 1, distances: true });
                return Ok(2);
            }
            () => return if searches { self.take_area(call, i) } else { Err(Refusal::Syntax) },
        }
        Ok(1)
    }

    /// Reads an option of GEOSEARCH that says something of the area.
    fn take_area(&mut self, call: &Call<'_>, i: usize) -> Result<usize, Refusal> {
        let behind = call.count() - i - 1;
        let is = |word: &str, takes: usize| behind >= takes && call.arguments.is(i, word);
        let is_place = matches!(self.center, Center::Place(_));
        let is_member = matches!(self.center, Center::Member(_) | Center::Nowhere);
        let (circle, rectangle) = (
            matches!(self.shape, Some(Shape::Circle(_))),
            matches!(self.shape, Some(Shape::Box(..))),
        );
        match () {
            () if !is_place && is("frommember", 1) => {
                self.center = self.member(call.at(i + 1))?;
                Ok(2)
            }
            () if !is_member && is("fromlonlat", 2) => {
                self.center = Center::Place(place_at(call, i + 1)?);
                Ok(3)
            }
            () if !rectangle && is("byradius", 2) => {
                self.take_radius(call, i + 1)?;
                Ok(3)
            }
            () if !circle && is("bybox", 3) => {
                self.take_box(call, i + 1)?;
                Ok(4)
            }
            () => Err(Refusal::Syntax),
        }
    }

    /// Do the options go together?
    fn check(&self, call: &Call<'_>) -> Result<(), Refusal> {
        let shows = self.with_distance || self.with_number || self.with_place;
        if self.destination.is_some() && shows {
            return Err(Refusal::text(match self.form.searches() {
                true => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
                false => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
            }));
        }
        if self.form.searches() && self.center == Center::Unsaid {
            let text = "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for ";
            return Err(Refusal::repeating(text, call.at(0), ""));
        }
        if self.form.searches() && self.shape.is_none() {
            let text = "ERR exactly one of BYRADIUS and BYBOX can be specified for ";
            return Err(Refusal::repeating(text, call.at(0), ""));
        }
        if self.any && self.count.is_none() {
            return Err(Refusal::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// The members in the area, in the order and as many as wanted.
    fn found(&self) -> Vec<Found<'v>> {
        let (Center::Place(center) | Center::Member(center)) = self.center else {
            return Vec::new();
        };
        let (Some(set), Some(shape)) = (self.set, self.shape) else { return Vec::new() };
        let area = Area { center, shape };
        let enough = if self.any { self.count.unwrap_or(usize::MAX) } else { usize::MAX };
        let ranges = area.ranges().into_iter();
        let members = ranges.flat_map(|range| {
            let (low, high) = (range.start as f64, range.end as f64);
            let from = set.partition_point_at(low, |_, score| score < low);
            set.members_from(from).take_while(move |(_, score)| *score < high)
        });
        let found = members.filter_map(|(member, score)| {
            let place = Place::of_score(score);
            let distance = area.distance_within(place)?;
            Some(Found { member, score, place, distance })
        });
        let mut found: Vec<Found<'v>> = found.take(enough).collect();
        let nearest_first = |one: &Found<'_>, other: &Found<'_>| {
            one.distance.partial_cmp(&other.distance).unwrap_or(Ordering::Equal)
        };
        match self.order {
            Order::Nearest => found.sort_by(nearest_first),
            Order::Farthest => found.sort_by(|one, other| nearest_first(other, one)),
            // The count is of the nearest ones.
            Order::Any if self.count.is_some() && !self.any => found.sort_by(nearest_first),
            Order::Any => {}
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
        found
    }

    fn show(&self, reply: &mut Reply<'_>) {
        let found = self.found();
        let extra = [self.with_distance, self.with_number, self.with_place];
        let extra = extra.into_iter().filter(|with| *with).count();
        reply.array(found.len());
        for Found { member, score, place, distance } in found {
            if extra > 0 {
                reply.array(1 + extra);
            }
            reply.bulk(member);
            if self.with_distance {
                show_distance(distance / self.unit, reply);
            }
            if self.with_number {
                reply.integer(score as i64);
            }
            if self.with_place {
                show_place(place, reply);
            }
        }
    }

    /// What is to be stored; scores are places or distances.
    fn stored(&self, distances: bool) -> Vec<(Vec<u8>, f64)> {
        let found = self.found().into_iter();
        let score = |found: &Found<'_>| match distances {
            true => found.distance / self.unit,
            false => found.score,
        };
        found.map(|found| (found.member.to_vec(), score(&found))).collect()
    }
}

fn show(call: &Call<'_>, view: &View<'_>, form: Form, reply: &mut Reply<'_>) -> Outcome {
    Asked::of(call, view, form)?.show(reply);
    Ok(())
}

fn show_or_store(
    call: &Call<'_>,
    edit: &mut Edit<'_>,
    form: Form,
    reply: &mut Reply<'_>,
) -> Outcome {
    let view = edit.view();
    let asked = Asked::of(call, &view, form)?;
    let Some(Destination { at, distances }) = asked.destination else {
        asked.show(reply);
        return Ok(());
    };
    let members = asked.stored(distances);
    store_at(call, at, edit, &members, reply)
}

/// GEOSEARCH key FROMMEMBER member|FROMLONLAT longitude latitude BYRADIUS radius unit|BYBOX width
/// height unit [ASC|DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH].
fn geosearch(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Form::Search, reply)
}

/// GEOSEARCHSTORE destination source and the options of GEOSEARCH, or STOREDIST.
fn geosearchstore(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    show_or_store(call, edit, Form::SearchStore, reply)
}

/// GEORADIUS key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count
/// [ANY]] [ASC|DESC] [STORE key|STOREDIST key].
fn georadius(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    show_or_store(call, edit, Form::AroundPlace, reply)
}

/// GEORADIUSBYMEMBER key member radius unit and the options of GEORADIUS.
fn georadiusbymember(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    show_or_store(call, edit, Form::AroundMember, reply)
}

/// GEORADIUS_RO: as GEORADIUS without STORE.
fn georadius_ro(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Form::AroundPlace, reply)
}

/// GEORADIUSBYMEMBER_RO: as GEORADIUSBYMEMBER without STORE.
fn georadiusbymember_ro(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    show(call, view, Form::AroundMember, reply)
}
