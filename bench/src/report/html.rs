//! The report with plots: one HTML page that needs nothing else.

use std::fmt::Write;

use super::compared::Compared;
use super::goal::Goal;
use super::plot::{Axis, Line, Plot};
use crate::arm::ServerCommand;
use crate::client::tally::Tally;
use crate::machine::Machine;

const STYLE: &str = "body{font:15px/1.45 sans-serif;color:#222;max-width:1340px;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;font-size:13px;margin:1em 0}\
td,th{padding:3px 9px;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
th{background:#f4f4f4}td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}\
code{background:#f4f4f4;padding:1px 4px;font-size:13px}\
.plots{display:flex;flex-wrap:wrap;gap:12px}.plots svg{border:1px solid #eee}\
.scroll{overflow-x:auto}h2{margin-top:2em}";

/// The page of comparisons, with goals if there were any.
pub fn page(
    title: &str,
    machine: &Machine,
    servers: &[ServerCommand],
    remarks: &[String],
    goals: &[Goal],
    all: &[Compared],
) -> Result<String, String> {
    let mut body = String::new();
    let mut add = |text: String| body.push_str(&text);
    add(format!("<h1>{}</h1>", escape(title)));
    add(format!("<p>{}</p>", escape(&machine.text()).replace('\n', "<br><code>") + "</code>"));
    add("<ul>".into());
    for server in servers {
        add(format!(
            "<li><b>{}</b> <code>{}</code></li>",
            escape(&server.name),
            escape(&server.line())
        ));
    }
    add("</ul>".into());
    for remark in remarks {
        add(format!("<p>{}</p>", escape(remark)));
    }
    if !goals.is_empty() {
        add(format!("<h2>What was asked for</h2>{}", Goal::rows(goals).html()));
    }
    add(format!("<h2>Numbers</h2><div class=scroll>{}</div>", Compared::table(all).html()));
    add("<p>Values are medians over the rounds (lowest..highest); ratios are taken within a round.</p>".into());
    for family in families(all) {
        let first = &family[0].scenario;
        let arms: Vec<&str> =
            (0..family[0].arm_count()).map(|arm| family[0].arm_name(arm)).collect();
        let heading = format!("{}: {}", first.family, arms.join(", "));
        add(format!("<h2>{}</h2><p>{}</p>", escape(&heading), escape(&first.about)));
        add("<div class=plots>".into());
        for plot in family_plots(family) {
            add(plot.svg()?);
        }
        add("</div>".into());
    }
    Ok(document(title, &body))
}

/// A whole page around a body.
pub fn document(title: &str, body: &str) -> String {
    let mut page = String::from("<!doctype html><html lang=en><meta charset=utf-8>");
    let _ = write!(page, "<title>{}</title><style>{STYLE}</style>", escape(title));
    page.push_str(body);
    page.push_str("</html>\n");
    page
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Comparisons of the same scenario file, in order.
fn families(all: &[Compared]) -> impl Iterator<Item = &[Compared]> {
    all.chunk_by(|one, other| one.scenario.family == other.scenario.family)
}

fn family_plots(family: &[Compared]) -> Vec<Plot> {
    let mut plots = Vec::new();
    let mut connections: Vec<usize> = family.iter().map(|one| one.scenario.connections).collect();
    connections.sort_unstable();
    connections.dedup();
    for connections in connections {
        let same: Vec<&Compared> =
            family.iter().filter(|one| one.scenario.connections == connections).collect();
        if same.len() > 1 {
            plots.extend(depth_plots(&same));
        }
    }
    for compared in family {
        plots.extend(latency_plots(compared));
        plots.extend(time_plot(compared));
    }
    plots
}

/// Throughput and cpu by pipeline depth.
fn depth_plots(family: &[&Compared]) -> [Plot; 2] {
    let depth = |compared: &Compared| compared.scenario.pipeline as f64;
    let ticks = || family.iter().map(|one| (depth(one), one.scenario.pipeline.to_string()));
    let title = |what: &str| {
        let first = &family[0].scenario;
        format!("{what}: {}, {} connections", first.family, first.connections)
    };
    let lines = |value: &dyn Fn(&Compared, usize) -> f64| -> Vec<Line> {
        (0..family[0].arm_count())
            .map(|arm| Line {
                name: family[0].arm_name(arm).to_string(),
                color: arm,
                points: family.iter().map(|one| (depth(one), value(one, arm))).collect(),
                dots: true,
            })
            .collect()
    };
    let rates = lines(&|one, arm| one.spread(arm, |m| m.requests_per_second).median);
    let cpus = lines(&|one, arm| one.spread(arm, |m| m.server_cpu_us_per_request).median);
    [
        Plot {
            title: title("throughput"),
            x_name: "pipeline depth",
            y_name: "requests/s",
            x: Axis::ticked(ticks().collect(), true),
            y: Axis::linear(highest(&rates)),
            lines: rates,
            marks: Vec::new(),
        },
        Plot {
            title: title("server cpu per request"),
            x_name: "pipeline depth",
            y_name: "microseconds",
            x: Axis::ticked(ticks().collect(), true),
            y: Axis::logarithmic(values(&cpus)),
            lines: cpus,
            marks: Vec::new(),
        },
    ]
}

/// Latency by percentile, of each load: the rounds together.
fn latency_plots(compared: &Compared) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (load, plan) in compared.scenario.plan.loads.iter().enumerate() {
        let mut lines = Vec::new();
        for arm in 0..compared.arm_count() {
            let mut tally = Tally::new();
            for round in &compared.rounds {
                if let Some(of_round) = &round[arm].loads[load].tally {
                    tally.add(of_round);
                }
            }
            if tally.replies > 0 {
                let name = compared.arm_name(arm).to_string();
                lines.push(Line { name, color: arm, points: curve(&tally), dots: false });
            }
        }
        if lines.is_empty() {
            continue;
        }
        let name = if compared.scenario.plan.loads.len() == 1 { "" } else { &plan.name };
        plots.push(Plot {
            title: format!("latency: {} {name}", compared.scenario.name),
            x_name: "percentile",
            y_name: "microseconds",
            x: Axis::ticked(
                [
                    (1.0, "0"),
                    (10.0, "90"),
                    (100.0, "99"),
                    (1e3, "99.9"),
                    (1e4, "99.99"),
                    (1e5, "99.999"),
                ]
                .map(|(place, text)| (place, text.to_string()))
                .to_vec(),
                true,
            ),
            y: Axis::logarithmic(values(&lines)),
            lines,
            marks: Vec::new(),
        });
    }
    plots
}

/// Latency over 1 / (1 - part): each nine is as wide as the one before. As far as there are enough
/// requests.
fn curve(tally: &Tally) -> Vec<(f64, f64)> {
    const STEPS_PER_NINE: u32 = 10;
    const NINES: u32 = 5;
    (0..=STEPS_PER_NINE * NINES)
        .map(|step| 10_f64.powf(f64::from(step) / f64::from(STEPS_PER_NINE)))
        .take_while(|inverse| *inverse <= tally.replies as f64)
        .map(|inverse| (inverse, tally.percentile_us(100.0 * (1.0 - 1.0 / inverse))))
        .collect()
}

/// Throughput over time of the last round.
fn time_plot(compared: &Compared) -> Option<Plot> {
    let round = compared.rounds.last()?;
    let lines: Vec<Line> = round
        .iter()
        .enumerate()
        .filter(|(_, measurement)| !measurement.samples.is_empty())
        .map(|(arm, measurement)| Line {
            name: measurement.server.clone(),
            color: arm,
            points: measurement.samples.iter().map(|sample| (sample.at, sample.rate)).collect(),
            dots: false,
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    Some(Plot {
        title: format!("throughput over time: {}, last round", compared.scenario.name),
        x_name: "seconds",
        y_name: "requests/s",
        x: Axis::time(
            lines.iter().flat_map(|line| &line.points).fold(0.0, |most, p| p.0.max(most)),
        ),
        y: Axis::linear(highest(&lines)),
        lines,
        marks: Vec::new(),
    })
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| line.points.iter().map(|point| point.1))
}

fn highest(lines: &[Line]) -> f64 {
    values(lines).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_end_where_requests_do() {
        let mut tally = Tally::new();
        for latency in 1..=1000 {
            tally.answered(latency * 1000, 1);
        }
        let curve = curve(&tally);
        let (inverse, latency) = *curve.last().expect("some points");
        assert!((999.0..=1000.1).contains(&inverse), "{inverse}");
        assert!((998.0..=1001.0).contains(&latency), "{latency}");
        assert!(curve.is_sorted_by(|one, other| one.1 <= other.1));
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
        assert!(document("<x>", "").contains("<title>&lt;x&gt;"));
    }
}
