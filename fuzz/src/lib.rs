//! What must hold for any bytes from outside: one module per fuzz target, with the property and the seeds.
//!
//! Inputs are shaped so that a fuzzer gets behind checksums: it mutates what is covered, and the target puts the
//! checksum in place. `docs/testing.md` says how to run them. What they have found is kept as cases in the ordinary
//! tests beside the code.

pub mod acl_rules;
pub mod links;
pub mod log_records;
pub mod meta;
pub mod payloads;
pub mod rdb_files;
pub mod requests;
pub mod scripts;
pub mod snapshots;
pub mod values;

/// A target's name, its property and its seeds.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All targets.
pub const TARGETS: &[Target] = &[
    ("requests", requests::check, requests::seeds),
    ("log_records", log_records::check, log_records::seeds),
    ("snapshots", snapshots::check, snapshots::seeds),
    ("payloads", payloads::check, payloads::seeds),
    ("frames", links::check_frames, links::frame_seeds),
    ("hellos", links::check_hellos, links::hello_seeds),
    ("rdb_files", rdb_files::check, rdb_files::seeds),
    ("meta", meta::check, meta::seeds),
    ("acl_rules", acl_rules::check, acl_rules::seeds),
    ("scripts", scripts::check, scripts::seeds),
    ("values", values::check, values::seeds),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_hold_for_the_seeds_and_their_neighbours() {
        for (name, check, seeds) in TARGETS {
            for (n, seed) in seeds().into_iter().enumerate() {
                println!("{name} {n}");
                check(&seed);
                for at in 0..seed.len().min(400) {
                    check(&seed[..at]);
                    let mut changed = seed.clone();
                    changed[at] = changed[at].wrapping_add(1);
                    check(&changed);
                    changed[at] = 0xff;
                    check(&changed);
                }
            }
        }
    }
}
