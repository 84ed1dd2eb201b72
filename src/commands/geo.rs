//! Places on Earth: sorted sets whose scores are the numbers of places (`crate::geo`).

use super::refusal::{Outcome, Refusal};
use super::zset::{Adding, add_pairs};
use super::{Arity, Call, Command, Group, Keys, read, write};
use crate::geo::Place;
use crate::numbers::{parse_float, print_decimals, print_rounded};
use crate::resp::reply::{Protocol, Reply};
use Arity::AtLeast;
use ringraft_shards::keyspace::{Edit, View};

/// The rows of this file.
pub const COMMANDS: &[Command] = &[
    write("geoadd", AtLeast(5), Keys::FIRST, geoadd).grows().about(
        Group::Geo,
        "3.2.0",
        "Gives members of a sorted set places on Earth, making it when it does not exist.",
    ),
    read("geopos", AtLeast(2), Keys::FIRST, geopos).about(
        Group::Geo,
        "3.2.0",
        "Returns longitudes and latitudes of members.",
    ),
    read("geodist", AtLeast(4), Keys::FIRST, geodist).about(
        Group::Geo,
        "3.2.0",
        "Returns the distance between two members.",
    ),
    read("geohash", AtLeast(2), Keys::FIRST, geohash).about(
        Group::Geo,
        "3.2.0",
        "Returns the geohashes of members.",
    ),
];

/// GEOADD key [NX|XX] [CH] longitude latitude member [longitude latitude member ...].
fn geoadd(call: &Call<'_>, edit: &mut Edit<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (mut adding, mut at) = (Adding::default(), 2);
    while at < call.count() {
        let option = match () {
            () if call.arguments.is(at, "nx") => &mut adding.absent,
            () if call.arguments.is(at, "xx") => &mut adding.present,
            () if call.arguments.is(at, "ch") => &mut adding.changed,
            () => break,
        };
        *option = true;
        at += 1;
    }
    let rest = call.count() - at;
    if rest == 0 || !rest.is_multiple_of(3) || adding.absent && adding.present {
        return Err(Refusal::Syntax);
    }
    let places = (at..call.count()).step_by(3);
    let places = places.map(|i| Ok((place_at(call, i)?.number() as f64, call.at(i + 2))));
    let pairs = places.collect::<Result<Vec<_>, Refusal>>()?;
    add_pairs(call, edit, adding, &pairs, reply)
}

/// The place whose longitude is argument `i`. Errors: no numbers; a place that does not exist.
pub(super) fn place_at(call: &Call<'_>, i: usize) -> Result<Place, Refusal> {
    let number = |i| parse_float(call.at(i)).ok_or(Refusal::NotAFloat);
    let (longitude, latitude) = (number(i)?, number(i + 1)?);
    Place::new(longitude, latitude).ok_or_else(|| {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        Refusal::Text(text.into())
    })
}

/// How many meters the unit is that argument `i` names.
pub(super) fn unit_at(call: &Call<'_>, i: usize) -> Result<f64, Refusal> {
    const UNITS: [(&str, f64); 4] = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];
    let unit = UNITS.iter().find(|(name, _)| call.arguments.is(i, name)).map(|unit| unit.1);
    unit.ok_or(Refusal::text("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// Where each member after the key is; `None` for those that are not there.
fn places(
    call: &Call<'_>,
    view: &View<'_>,
) -> Result<impl Iterator<Item = Option<Place>>, Refusal> {
    let set = call.sorted_set(1, view)?;
    let members = call.arguments.iter_from(2);
    Ok(members.map(move |member| set.and_then(|set| set.score(member)).map(Place::of_score)))
}

/// GEOPOS key [member ...].
fn geopos(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let places = places(call, view)?;
    reply.array(call.count() - 2);
    for place in places {
        match place {
            Some(place) => show_place(place, reply),
            None => reply.null_array(),
        }
    }
    Ok(())
}

/// Longitude and latitude, with all digits that Redis prints.
pub(super) fn show_place(place: Place, reply: &mut Reply<'_>) {
    reply.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = print_decimals(degrees, 17);
        match reply.protocol() {
            Protocol::Resp2 => reply.bulk(text.as_bytes()),
            Protocol::Resp3 => reply.raw(format!(",{text}\r\n").as_bytes()),
        }
    }
}

/// GEODIST key member member [M|KM|FT|MI]. Null when one of them is not there.
fn geodist(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let unit = match call.count() {
        4 => 1.0,
        5 => unit_at(call, 4)?,
        _ => return Err(Refusal::Syntax),
    };
    let set = call.sorted_set(1, view)?;
    let place = |i| set.and_then(|set| set.score(call.at(i))).map(Place::of_score);
    match place(2).zip(place(3)) {
        Some((one, other)) => show_distance(one.distance(other) / unit, reply),
        None => reply.null(),
    }
    Ok(())
}

/// A distance, with four decimals.
pub(super) fn show_distance(distance: f64, reply: &mut Reply<'_>) {
    reply.bulk(print_rounded(distance, 4).as_bytes());
}

/// GEOHASH key [member ...].
fn geohash(call: &Call<'_>, view: &View<'_>, reply: &mut Reply<'_>) -> Outcome {
    let places = places(call, view)?;
    reply.array(call.count() - 2);
    for place in places {
        match place {
            Some(place) => reply.bulk(&place.geohash()),
            None => reply.null(),
        }
    }
    Ok(())
}
