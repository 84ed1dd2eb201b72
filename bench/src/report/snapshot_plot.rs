//! Throughput and longest latencies over time, with the snapshots shaded.

use super::Table;
use super::html::escape;
use super::plot::{Axis, Line, Plot};
use crate::client::run::Sample;
use crate::machine::Machine;

/// One server: a run without snapshots, and one with.
pub struct Timeline {
    /// Its name.
    pub server: String,
    /// The load alone.
    pub alone: Vec<Sample>,
    /// With snapshots.
    pub meanwhile: Vec<Sample>,
    /// When each snapshot began and ended, in seconds of the second run.
    pub spans: Vec<(f64, f64)>,
}

/// The body of the page.
pub fn page(machine: &Machine, table: &Table, timelines: &[Timeline]) -> Result<String, String> {
    let mut body = format!(
        "<h1>ringraft-bench snapshot</h1><p>{}</p><div class=scroll>{}</div><div class=plots>",
        escape(&machine.text()).replace('\n', "<br>"),
        table.html()
    );
    for timeline in timelines {
        let rate = |sample: &Sample| sample.rate;
        let longest = |sample: &Sample| sample.longest_us;
        body.push_str(&plot(timeline, "throughput", "requests/s", &rate).svg()?);
        body.push_str(
            &plot(timeline, "longest latency per 100 ms", "microseconds", &longest).svg()?,
        );
    }
    body.push_str("</div><p>First the load alone, then with snapshots, which are shaded.</p>");
    Ok(body)
}

fn plot(
    timeline: &Timeline,
    what: &str,
    y_name: &'static str,
    value: &dyn Fn(&Sample) -> f64,
) -> Plot {
    let shift = timeline.alone.last().map_or(0.0, |sample| sample.at);
    let points = |samples: &[Sample], shift: f64| {
        samples.iter().map(|sample| (sample.at + shift, value(sample))).collect::<Vec<_>>()
    };
    let lines = vec![
        Line { name: "alone".into(), color: 0, points: points(&timeline.alone, 0.0), dots: false },
        Line {
            name: "with snapshots".into(),
            color: 1,
            points: points(&timeline.meanwhile, shift),
            dots: false,
        },
    ];
    let all = || lines.iter().flat_map(|line| &line.points);
    let marks = timeline.spans.iter().enumerate().map(|(index, (begin, end))| {
        let text = if index == 0 { "snapshots" } else { "" };
        (begin + shift, end + shift, text.to_string())
    });
    Plot {
        title: format!("{}: {what}", timeline.server),
        x_name: "seconds",
        y_name,
        x: Axis::time(all().fold(0.0, |most, point| point.0.max(most))),
        y: Axis::linear(all().fold(0.0, |most, point| point.1.max(most)) * 1.1),
        marks: marks.collect(),
        lines,
    }
}
