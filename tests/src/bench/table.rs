//! The figures of a run as one table, each beside its target.

use std::fmt;

use super::{ClusterFigures, RawFigures, Scale};

/// The targets: what a cluster has to reach of the raw rate.
struct Targets {
    name: &'static str,
    writes: f64,
    reads: f64,
}

const ONE_NODE: Targets = Targets { name: "1 node, RF 1", writes: 0.25, reads: 0.15 };
const THREE_NODES: Targets = Targets { name: "3 nodes, RF 3, QUORUM", writes: 0.12, reads: 0.08 };
const P99_AT_HALF_US_MAX: u64 = 10_000;
const IDLE_BYTES_MAX: u64 = 100_000_000;
const SERVING_S_MAX: f64 = 1.0;

/// See the module.
#[derive(Clone, Debug)]
pub struct Table {
    /// How it was measured.
    pub scale: Scale,
    /// The store alone.
    pub raw: RawFigures,
    /// One node; nothing if it was not measured.
    pub one: Option<ClusterFigures>,
    /// Three nodes; nothing if they were not measured.
    pub three: Option<ClusterFigures>,
}

struct Row {
    what: String,
    figure: String,
    ratio: String,
    target: String,
    met: Option<bool>,
}

impl Row {
    fn plain(what: &str, figure: String) -> Row {
        Row {
            what: what.to_owned(),
            figure,
            ratio: String::new(),
            target: String::new(),
            met: None,
        }
    }

    fn rate(what: String, rate: f64, raw: f64, target: f64) -> Row {
        let ratio = rate / raw;
        Row {
            what,
            figure: format!("{rate:.0}/s"),
            ratio: format!("{:.1}%", ratio * 100.0),
            target: format!(">= {:.0}%", target * 100.0),
            met: Some(ratio >= target),
        }
    }

    fn limit(what: String, figure: String, target: String, met: bool) -> Row {
        Row { what, figure, ratio: String::new(), target, met: Some(met) }
    }
}

impl Table {
    fn rows(&self) -> Vec<Row> {
        let RawFigures { puts_per_s, gets_per_s } = self.raw;
        let mut rows = vec![
            Row::plain("raw RocksDB, 1 thread: puts", format!("{puts_per_s:.0}/s")),
            Row::plain("raw RocksDB, 1 thread: gets", format!("{gets_per_s:.0}/s")),
        ];
        for (targets, figures) in [(ONE_NODE, &self.one), (THREE_NODES, &self.three)] {
            if let Some(figures) = figures {
                self.cluster_rows(&targets, figures, &mut rows);
            }
        }
        rows
    }

    fn cluster_rows(&self, targets: &Targets, figures: &ClusterFigures, rows: &mut Vec<Row>) {
        let name = targets.name;
        let RawFigures { puts_per_s, gets_per_s } = self.raw;
        let (writes, reads) = (figures.writes.throughput_per_s, figures.reads.throughput_per_s);
        rows.push(Row::rate(format!("{name}: writes"), writes, puts_per_s, targets.writes));
        rows.push(Row::rate(format!("{name}: reads"), reads, gets_per_s, targets.reads));
        let milliseconds = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
        for (what, latency) in [
            ("write", &figures.writes_at_half.latency_us.write),
            ("read", &figures.reads_at_half.latency_us.read),
        ] {
            let median = format!("{name}: {what} median at half of that");
            rows.push(Row::plain(&median, milliseconds(latency.p50)));
            rows.push(Row::limit(
                format!("{name}: {what} p99 at half of that"),
                milliseconds(latency.p99),
                format!("< {} ms", P99_AT_HALF_US_MAX / 1000),
                latency.p99 < P99_AT_HALF_US_MAX,
            ));
        }
        if let Some(stolen) = figures.stolen {
            let what = format!("{name}: processors taken by the host");
            rows.push(Row::plain(&what, format!("{:.1}%", stolen * 100.0)));
        }
        let megabytes = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
        rows.push(Row::limit(
            format!("{name}: largest node, idle"),
            megabytes(figures.idle_bytes),
            format!("< {}", megabytes(IDLE_BYTES_MAX)),
            figures.idle_bytes < IDLE_BYTES_MAX,
        ));
        rows.push(Row::plain(
            &format!("{name}: largest node, after the load"),
            megabytes(figures.loaded_bytes),
        ));
        for (what, serving) in
            [("a stop", figures.serving_after_stop), ("kill -9", figures.serving_after_kill)]
        {
            let seconds = serving.as_secs_f64();
            rows.push(Row::limit(
                format!("{name}: exec to serving after {what}"),
                format!("{seconds:.2} s"),
                format!("< {SERVING_S_MAX:.0} s"),
                seconds < SERVING_S_MAX,
            ));
        }
        let runs =
            [&figures.writes, &figures.writes_at_half, &figures.reads, &figures.reads_at_half];
        let errors: u64 = runs.iter().map(|report| report.errors.sum()).sum();
        rows.push(Row::limit(
            format!("{name}: errors"),
            errors.to_string(),
            "0".to_owned(),
            errors == 0,
        ));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scale { records, value_bytes, concurrency, measure, .. } = self.scale;
        writeln!(
            formatter,
            "{records} keys, values of {value_bytes} bytes, {concurrency} operations at a time, {} s each;\n\
             client, nodes and store share this machine's cores; durability: group",
            measure.as_secs()
        )?;
        writeln!(formatter, "{:<50} {:>12} {:>8} {:>9}", "", "measured", "of raw", "target")?;
        for Row { what, figure, ratio, target, met } in self.rows() {
            let verdict = match met {
                None => "",
                Some(true) => "  met",
                Some(false) => "  MISSED",
            };
            let line = format!("{what:<50} {figure:>12} {ratio:>8} {target:>9}{verdict}");
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RawFigures, Scale, Table};

    #[test]
    fn without_clusters_there_are_the_raw_rates() {
        let raw = RawFigures { puts_per_s: 250_000.0, gets_per_s: 400_000.4 };
        let scale = Scale { measure: Duration::from_secs(10), ..Scale::default() };
        let table = Table { scale, raw, one: None, three: None }.to_string();
        assert!(table.contains("puts") && table.contains("250000/s"), "{table}");
        assert!(table.contains("400000/s") && !table.contains("MISSED"), "{table}");
    }

    #[test]
    fn rates_are_judged_by_their_ratio() {
        assert_eq!(super::Row::rate(String::new(), 30.0, 100.0, 0.25).met, Some(true));
        assert_eq!(super::Row::rate(String::new(), 24.9, 100.0, 0.25).met, Some(false));
    }
}
