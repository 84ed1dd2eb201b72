//! Which cpus the cores are pinned to.

use super::Refusal;
use crate::settings::values::cpus_text;

/// The cpus this process may use, ascending: cgroup cpusets and taskset respected.
pub fn allowed() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<usize> = ids.iter().map(|id| id.id).collect();
    cpus.sort_unstable();
    cpus
}

/// The cpus to use: those asked for, else the first of the allowed ones, at most one per shard.
/// Errors: a cpu that is not allowed.
pub fn choose(
    asked: Option<&[usize]>,
    allowed: &[usize],
    shard_count: Option<u16>,
) -> Result<Vec<usize>, Refusal> {
    let Some(asked) = asked else {
        let count = shard_count.map_or(usize::MAX, usize::from);
        // Without a known cpu set the process runs on whichever cpu it is on.
        let all = if allowed.is_empty() { &[0][..] } else { allowed };
        return Ok(all.iter().copied().take(count).collect());
    };
    let missing: Vec<usize> = asked.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if missing.is_empty() {
        return Ok(asked.to_vec());
    }
    Err(Refusal::option(format!(
        "option --cores {}: cpu {} is not among those this process may use ({}): choose from these, or change its \
         cpuset or taskset",
        cpus_text(asked),
        cpus_text(&missing),
        cpus_text(allowed)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_chosen_from_the_allowed() {
        let allowed = [0, 1, 4, 5];
        for (asked, shards, chosen) in [
            (None, None, &[0, 1, 4, 5][..]),
            (None, Some(3), &[0, 1, 4]),
            (None, Some(9), &[0, 1, 4, 5]),
            (Some(&[4, 5][..]), None, &[4, 5]),
            (Some(&[4, 5][..]), Some(1), &[4, 5]),
        ] {
            assert_eq!(choose(asked, &allowed, shards).expect("allowed"), chosen);
        }
        let refusal =
            choose(Some(&[1, 2, 3]), &allowed, None).expect_err("2 and 3 are not allowed");
        assert!(refusal.text.contains("cpu 2-3 is not among"), "{}", refusal.text);
        assert!(refusal.text.contains("(0-1,4-5)"), "{}", refusal.text);
    }

    #[test]
    fn this_process_may_use_some_cpu() {
        assert!(!allowed().is_empty());
    }
}
