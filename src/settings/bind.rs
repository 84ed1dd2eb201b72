//! Where the server listens: addresses and names, as given and as found.
//!
//! The words are Redis': `*` is every IPv4 address, `::*` every IPv6 one, and a dash before an
//! address lets the start go on without it. Names are looked up once, at the start.

use super::values::{items, join};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

/// One word of the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it was given, without the dash.
    pub name: String,
    /// May it be absent? It had a dash.
    pub is_optional: bool,
    /// What it stands for; empty until a name is looked up.
    pub found: Vec<IpAddr>,
}

/// The whole setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    places: Vec<Place>,
    addresses: Vec<IpAddr>,
}

impl Default for Bind {
    /// This machine alone.
    fn default() -> Bind {
        Bind::parse("127.0.0.1").expect("an address")
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dash = |place: &Place| if place.is_optional { "-" } else { "" };
        let words = self.places.iter().map(|place| format!("{}{}", dash(place), place.name));
        f.write_str(&join(words, " "))
    }
}

impl Bind {
    /// Reads addresses and names, separated by commas or spaces.
    /// Errors: what is wrong with which.
    pub fn parse(text: &str) -> Result<Bind, String> {
        let places: Result<Vec<Place>, String> = items(text).map(parse_place).collect();
        let places = places?;
        if places.is_empty() {
            return Err("at least one address is needed".into());
        }
        let mut bind = Bind { places, addresses: Vec::new() };
        bind.collect();
        Ok(bind)
    }

    /// Looks its names up. It may take as long as the name server.
    /// Errors: a name that has no address.
    pub fn resolve(&mut self) -> Result<(), String> {
        for place in self.places.iter_mut().filter(|place| place.found.is_empty()) {
            match (place.name.as_str(), 0).to_socket_addrs() {
                Ok(found) => place.found = found.map(|address| address.ip()).collect(),
                Err(_) if place.is_optional => {}
                Err(error) => {
                    return Err(format!(
                        "option --bind '{}': it is no address, and no name that is known here ({error})",
                        place.name
                    ));
                }
            }
        }
        self.collect();
        Ok(())
    }

    fn collect(&mut self) {
        self.addresses.clear();
        for ip in self.places.iter().flat_map(|place| &place.found) {
            if !self.addresses.contains(ip) {
                self.addresses.push(*ip);
            }
        }
    }

    /// The words.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Every address, each once.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Leaves out addresses that this machine does not have.
    pub fn keep(&mut self, present: &[IpAddr]) {
        self.addresses.retain(|ip| present.contains(ip));
    }

    /// Can others than this machine reach it?
    pub fn is_open(&self) -> bool {
        self.addresses.iter().any(|ip| !ip.is_loopback())
    }
}

fn parse_place(word: &str) -> Result<Place, String> {
    let (is_optional, name) = match word.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, word),
    };
    let found = match name {
        "*" => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        "::*" => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        _ => name.parse().into_iter().collect(),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // Digits and dots alone are an address that was mistyped, not a name to ask for.
    let may_be_name = name.chars().all(is_name) && name.contains(|c: char| c.is_ascii_alphabetic());
    if found.is_empty() && !may_be_name {
        return Err(format!("'{word}' is neither an IP address nor a name"));
    }
    Ok(Place { name: name.to_string(), is_optional, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> String {
        let mut bind = Bind::parse(text).expect(text);
        bind.resolve().expect(text);
        join(bind.addresses().iter(), " ")
    }

    #[test]
    fn addresses_names_and_stars() {
        for (text, found) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1,::1 127.0.0.1", "127.0.0.1 ::1"),
            ("*", "0.0.0.0"),
            ("* -::*", "0.0.0.0 ::"),
            ("-10.1.2.3", "10.1.2.3"),
        ] {
            assert_eq!(addresses(text), found, "{text}");
            assert_eq!(Bind::parse(text).expect(text).to_string(), text.replace(',', " "));
        }
        let local = addresses("localhost 127.0.0.1");
        assert_eq!(local.matches("127.0.0.1").count(), 1, "{local}");
        for text in ["", " , ", "-", "300.0.0.1", "1.2.3", "http://x", "a b!", "127.0.0.1:6379"] {
            assert!(Bind::parse(text).is_err(), "{text:?}");
        }
        let mut nowhere = Bind::parse("no-such-name.invalid").expect("it might be a name");
        let refusal = nowhere.resolve().expect_err("it is none");
        assert!(refusal.starts_with("option --bind 'no-such-name.invalid': "), "{refusal}");
    }

    #[test]
    fn what_others_reach_is_open() {
        for (text, is_open) in [
            ("127.0.0.1 ::1", false),
            ("*", true),
            ("127.0.0.1 10.0.0.1", true),
            ("127.8.0.1", false),
        ] {
            assert_eq!(Bind::parse(text).expect(text).is_open(), is_open, "{text}");
        }
    }
}
