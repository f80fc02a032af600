//! The share of the processors' time that the machine's host kept for others: while it is large, no latency
//! measured here is the program's own.

use std::fs;

/// The place of `steal` in a line of `/proc/stat`, see proc_stat(5).
const STEAL: usize = 7;
/// What follows it is counted in `user` and `nice` already.
const FIELDS: usize = 8;

/// The processors' time since the machine's start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime {
    total: u64,
    stolen: u64,
}

impl CpuTime {
    /// Until now. `None` where the operating system does not tell.
    pub fn now() -> Option<CpuTime> {
        CpuTime::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<CpuTime> {
        let mut fields = stat.lines().next()?.split_whitespace();
        if fields.next()? != "cpu" {
            return None;
        }
        let ticks: Vec<u64> =
            fields.take(FIELDS).map(|field| field.parse().ok()).collect::<Option<_>>()?;
        Some(CpuTime { total: ticks.iter().sum(), stolen: *ticks.get(STEAL)? })
    }

    /// The share stolen between then and now, 0 to 1.
    pub fn stolen_since(self, then: CpuTime) -> f64 {
        let total = self.total.saturating_sub(then.total).max(1);
        self.stolen.saturating_sub(then.stolen) as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::CpuTime;

    #[test]
    fn the_share_is_of_all_time_between() {
        let then = CpuTime::parse("cpu  10 0 10 70 5 1 2 2 0 0\ncpu0 1 2 3\n").expect("a line");
        let now = CpuTime::parse("cpu  50 0 30 100 5 1 2 12 9 0\n").expect("a line");
        assert_eq!(now.stolen_since(then), 0.1);
        assert_eq!(CpuTime::parse("cpu 1 2"), None);
    }
}
