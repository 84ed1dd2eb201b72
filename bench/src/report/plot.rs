//! Plots as SVG text: lines over axes whose ticks are chosen here, so that logarithmic axes read
//! well.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Pixels.
const SIZE: (u32, u32) = (640, 400);

/// Told apart by people who do not see all colours (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

const GRID: RGBColor = RGBColor(220, 220, 220);
const INK: RGBColor = RGBColor(60, 60, 60);

/// An axis from its first place to its last, with ticks.
#[derive(Clone)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to at least `highest`, with round ticks.
    pub fn linear(highest: f64) -> Axis {
        const TICKS: f64 = 6.0;
        let highest = if highest > 0.0 && highest.is_finite() { highest } else { 1.0 };
        let rough = highest / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let count = (highest / step).ceil() as u32;
        let ticks = (0..=count).map(|tick| f64::from(tick) * step);
        Axis {
            low: 0.0,
            high: f64::from(count) * step,
            logarithmic: false,
            ticks: ticks.map(|tick| (tick, label(tick))).collect(),
        }
    }

    /// From 0 to `highest` and not further, with round ticks.
    pub fn time(highest: f64) -> Axis {
        let mut axis = Axis::linear(highest);
        if highest > 0.0 && highest.is_finite() {
            axis.ticks.retain(|tick| tick.0 <= highest);
            axis.high = highest;
        }
        axis
    }

    /// Around all `values`, which are above 0, with ticks at 1, 2 and 5 of each decade.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>) -> Axis {
        let (low, high) = values
            .into_iter()
            .filter(|value| *value > 0.0 && value.is_finite())
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low <= high { (low / 1.15, high * 1.15) } else { (1.0, 10.0) };
        let decades = (high / low).log10();
        let factors: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let ticks = powers
            .flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)))
            .filter(|tick| (low..=high).contains(tick));
        let ticks = ticks.map(|tick| (tick, label(tick))).collect();
        Axis { low, high, logarithmic: true, ticks }
    }

    /// Exactly these ticks, evenly or logarithmically placed.
    pub fn ticked(ticks: Vec<(f64, String)>, logarithmic: bool) -> Axis {
        let low = ticks.first().map_or(1.0, |tick| tick.0);
        let high = ticks.last().map_or(2.0, |tick| tick.0);
        // A single tick still needs room around it.
        let (low, high) = if low < high { (low, high) } else { (low / 2.0, low * 2.0) };
        Axis { low, high, logarithmic, ticks }
    }

    fn part(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

/// `0.35`, `250`, `12k`, `1.5M`
pub fn label(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (self.part(*value) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *value);
        tick.map_or_else(|| label(*value), |tick| tick.1.clone())
    }
}

/// One line.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Its colour; the same number is the same colour in every plot.
    pub color: usize,
    /// Left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether each point gets a dot.
    pub dots: bool,
}

/// A plot.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x_name: &'static str,
    /// Beside it.
    pub y_name: &'static str,
    /// Left to right.
    pub x: Axis,
    /// Bottom to top.
    pub y: Axis,
    /// Lines.
    pub lines: Vec<Line>,
    /// Spans of x that are shaded, with what happened in them.
    pub marks: Vec<(f64, f64, String)>,
}

impl Plot {
    /// As SVG.
    pub fn svg(&self) -> Result<String, String> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw(&area).map_err(|error| format!("plot {}: {error}", self.title))?;
        drop(area);
        Ok(text)
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 16).into_font().color(&INK))
            .margin(10)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .x_desc(self.x_name)
            .y_desc(self.y_name)
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
            .draw()?;
        let (low, high) = (self.y.low, self.y.high);
        for (begin, end, what) in &self.marks {
            let span = [(*begin, low), (*end, high)];
            chart.draw_series([Rectangle::new(span, BLACK.mix(0.08).filled())])?;
            let style = ("sans-serif", 11).into_font().color(&INK);
            chart.draw_series([Text::new(what.clone(), (*begin, high), style)])?;
        }
        for line in &self.lines {
            let color = COLORS[line.color % COLORS.len()];
            let style = ShapeStyle::from(color).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            if line.dots {
                let dots = line.points.iter().map(|point| Circle::new(*point, 4, color.filled()));
                chart.draw_series(dots)?;
            }
        }
        chart
            .configure_series_labels()
            .position(self.emptiest_corner())
            .label_font(("sans-serif", 12).into_font().color(&INK))
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .draw()?;
        area.present()?;
        Ok(())
    }

    /// Where a legend hides least of the lines.
    fn emptiest_corner(&self) -> SeriesLabelPosition {
        const WIDTH: f64 = 0.3;
        const HEIGHT: f64 = 0.25;
        const STEPS: u32 = 20;
        let mut hidden = [0_u32; 4];
        for line in &self.lines {
            for pair in line.points.windows(2) {
                for step in 0..=STEPS {
                    let along = f64::from(step) / f64::from(STEPS);
                    let between = |from: f64, to: f64| from + (to - from) * along;
                    let x = between(self.x.part(pair[0].0), self.x.part(pair[1].0));
                    let y = between(self.y.part(pair[0].1), self.y.part(pair[1].1));
                    hidden[0] += u32::from(x < WIDTH && y > 1.0 - HEIGHT);
                    hidden[1] += u32::from(x > 1.0 - WIDTH && y > 1.0 - HEIGHT);
                    hidden[2] += u32::from(x > 1.0 - WIDTH && y < HEIGHT);
                    hidden[3] += u32::from(x < WIDTH && y < HEIGHT);
                }
            }
        }
        let corner = (0..4).min_by_key(|corner| hidden[*corner]).unwrap_or(0);
        match corner {
            0 => SeriesLabelPosition::UpperLeft,
            1 => SeriesLabelPosition::UpperRight,
            2 => SeriesLabelPosition::LowerRight,
            _ => SeriesLabelPosition::LowerLeft,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            ticks(&Axis::linear(1_100_000.0)),
            ["0", "200k", "400k", "600k", "800k", "1M", "1.2M"]
        );
        assert_eq!(ticks(&Axis::linear(0.9)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(&Axis::logarithmic([0.3, 8.0])), ["0.5", "1", "2", "5"]);
        assert_eq!(
            ticks(&Axis::logarithmic([1.0, 1e5])),
            ["1", "10", "100", "1000", "10k", "100k"]
        );
        assert_eq!(ticks(&Axis::linear(f64::NAN)).len(), 6);
        assert_eq!(ticks(&Axis::time(6.2)), ["0", "2", "4", "6"]);
        assert_eq!(Axis::time(6.2).map(&6.2, (0, 100)), 100);
    }

    #[test]
    fn places_on_axes() {
        let axis = Axis::ticked(vec![(1.0, "1".into()), (100.0, "100".into())], true);
        assert_eq!(axis.map(&1.0, (0, 200)), 0);
        assert_eq!(axis.map(&10.0, (0, 200)), 100);
        assert_eq!(axis.map(&100.0, (0, 200)), 200);
        assert_eq!(Axis::linear(10.0).map(&5.0, (400, 0)), 200);
    }

    #[test]
    fn a_plot_holds_its_words() {
        let plot = Plot {
            title: "throughput".into(),
            x_name: "pipeline",
            y_name: "requests/s",
            x: Axis::ticked(vec![(1.0, "one".into()), (16.0, "sixteen".into())], true),
            y: Axis::linear(10.0),
            lines: vec![Line {
                name: "redis".into(),
                color: 0,
                points: vec![(1.0, 1.0), (16.0, 9.0)],
                dots: true,
            }],
            marks: vec![(2.0, 4.0, "snapshot".into())],
        };
        let svg = plot.svg().expect("drawn");
        for word in ["throughput", "pipeline", "requests/s", "sixteen", "redis", "snapshot"] {
            assert!(svg.contains(word), "{word} is missing");
        }
        assert!(svg.starts_with("<svg"));
    }
}
