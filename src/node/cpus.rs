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

/// The cpus to use: those asked for, else the first of the allowed ones, at most one per shard and
/// as many as the quota is worth.
/// Errors: a cpu that is not allowed.
pub fn choose(
    asked: Option<&[usize]>,
    allowed: &[usize],
    shard_count: Option<u16>,
    quota: Option<usize>,
) -> Result<Vec<usize>, Refusal> {
    let Some(asked) = asked else {
        let count = shard_count.map_or(usize::MAX, usize::from);
        let count = count.min(quota.unwrap_or(usize::MAX));
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

/// Share of a cpu that others may use for the server to begin there.
const BUSY_MAX: f64 = 0.5;

/// The place of the first cpu that is not busy; of the least busy one if all are. One of which
/// nothing is known counts as idle.
pub fn first_free(busy: &[Option<f64>]) -> usize {
    let share = |place: &usize| busy[*place].unwrap_or(0.0);
    let free = (0..busy.len()).find(|place| share(place) <= BUSY_MAX);
    let least = || (0..busy.len()).min_by(|a, b| share(a).total_cmp(&share(b)));
    free.or_else(least).unwrap_or(0)
}

/// How many cpus the container's quota is worth, rounded up; nothing without a quota.
pub fn quota() -> Option<usize> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    quota_of(&membership, &read)
}

/// `membership` is the text of `/proc/self/cgroup`. A group has no more than those above it.
fn quota_of(membership: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let mut least: Option<f64> = None;
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        // Version 2 has one tree and an empty list.
        let root = match controllers.split(',').any(|name| name == "cpu") {
            true => ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].as_slice(),
            false if controllers.is_empty() => &["/sys/fs/cgroup"],
            false => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            for root in root {
                let found = share_of(&format!("{root}{path}"), read);
                least = found.map(|share| least.map_or(share, |least| least.min(share))).or(least);
            }
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    least.map(|cpus| cpus.ceil().max(1.0) as usize)
}

/// The quota of one group, in cpus.
fn share_of(group: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    let share = |quota: &str, period: &str| {
        let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    };
    if let Some(text) = read(&format!("{group}/cpu.max")) {
        let (quota, period) = text.trim().split_once(' ')?;
        return share(quota, period);
    }
    let quota = read(&format!("{group}/cpu.cfs_quota_us"))?;
    share(&quota, &read(&format!("{group}/cpu.cfs_period_us"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_chosen_from_the_allowed() {
        let allowed = [0, 1, 4, 5];
        for (asked, shards, quota, chosen) in [
            (None, None, None, &[0, 1, 4, 5][..]),
            (None, Some(3), None, &[0, 1, 4]),
            (None, Some(9), None, &[0, 1, 4, 5]),
            (None, Some(9), Some(2), &[0, 1]),
            (None, Some(1), Some(2), &[0]),
            (Some(&[4, 5][..]), None, None, &[4, 5]),
            (Some(&[4, 5][..]), Some(1), Some(1), &[4, 5]),
        ] {
            assert_eq!(choose(asked, &allowed, shards, quota).expect("allowed"), chosen);
        }
        let refusal =
            choose(Some(&[1, 2, 3]), &allowed, None, None).expect_err("2 and 3 are not allowed");
        assert!(refusal.text.contains("cpu 2-3 is not among"), "{}", refusal.text);
        assert!(refusal.text.contains("(0-1,4-5)"), "{}", refusal.text);
    }

    #[test]
    fn the_first_free_cpu_is_begun_on() {
        assert_eq!(first_free(&[Some(0.1), Some(0.0)]), 0);
        assert_eq!(first_free(&[Some(0.9), None, Some(0.0)]), 1);
        assert_eq!(first_free(&[Some(0.9), Some(0.7), Some(0.8)]), 1);
        assert_eq!(first_free(&[]), 0);
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        let files = |files: &'static [(&'static str, &'static str)]| {
            move |path: &str| {
                let found = files.iter().find(|(name, _)| *name == path);
                found.map(|(_, text)| text.to_string())
            }
        };
        let none = files(&[]);
        assert_eq!(quota_of("0::/\n", &none), None);
        let second = files(&[
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
        ]);
        assert_eq!(quota_of("0::/a/b\n", &second), Some(3));
        assert_eq!(quota_of("0::/b\n", &second), None);
        // In a container its own group is the root.
        let inside = files(&[("/sys/fs/cgroup/cpu.max", "50000 100000")]);
        assert_eq!(quota_of("0::/\n", &inside), Some(1));
        let first = files(&[
            ("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota_of("4:memory:/y\n1:cpu,cpuacct:/x\n0::/\n", &first), Some(4));
        assert_eq!(quota_of("1:cpuacct:/x\n", &first), None);
        assert_eq!(quota_of("garbage", &first), None);
    }

    #[test]
    fn this_process_may_use_some_cpu() {
        assert!(!allowed().is_empty());
    }
}
