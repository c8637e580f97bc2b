//! The times from a cancel to a clean connection, as a picture: for each line, the share of the connections that were
//! clean by then. SVG, written by hand: two axes and three lines are less than what a crate for plots would add.

use std::fmt::Write as _;
use std::time::Duration;

/// The area in which the lines are drawn.
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
/// The axis of time is logarithmic, from a tenth of a millisecond to ten seconds, in powers of ten of a millisecond.
const FIRST: i32 = -1;
const LAST: i32 = 4;
/// Points of a line that one can tell apart.
const POINTS: usize = 200;

/// What one line shows.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) label: &'a str,
    pub(super) color: &'a str,
    /// Sorted.
    pub(super) spans: Vec<Duration>,
}

/// The picture as text.
pub(super) fn svg(title: &str, lines: &[Line<'_>]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = draw(&mut out, title, lines);
    out
}

fn draw(out: &mut String, title: &str, lines: &[Line<'_>]) -> std::fmt::Result {
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 390" font-family="sans-serif" font-size="12" fill="#222">
<title>{title}</title>
<rect width="740" height="390" fill="#fff"/>
<text x="{LEFT}" y="26" font-size="15">{title}</text>"##
    )?;
    for power in FIRST..=LAST {
        let (x, bottom) = (across(f64::from(power)), TOP + HEIGHT);
        let label = match power {
            3.. => format!("{} s", 10_f64.powi(power - 3)),
            _ => format!("{} ms", 10_f64.powi(power)),
        };
        writeln!(
            out,
            r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"##,
            bottom + 18.0
        )?;
    }
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let y = up(share);
        writeln!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{:.0} %</text>"##,
            LEFT + WIDTH,
            LEFT - 8.0,
            y + 4.0,
            share * 100.0
        )?;
    }
    for (number, line) in lines.iter().enumerate() {
        let y = TOP + HEIGHT + 42.0 + 16.0 * number as f64;
        writeln!(
            out,
            r#"<path d="{}" fill="none" stroke="{}" stroke-width="2"/>
<path d="M{LEFT} {:.1}h24" stroke="{}" stroke-width="2"/><text x="{}" y="{y:.1}">{} ({})</text>"#,
            steps(&line.spans),
            line.color,
            y - 4.0,
            line.color,
            LEFT + 32.0,
            line.label,
            line.spans.len()
        )?;
    }
    writeln!(out, "</svg>")
}

/// A staircase through the spans.
fn steps(spans: &[Duration]) -> String {
    let count = spans.len();
    let mut path = String::new();
    let points = count.min(POINTS);
    for point in 1..=points {
        let rank = (point * count).div_ceil(points);
        let millis = (spans[rank - 1].as_secs_f64() * 1e3).max(1e-3);
        let (x, y) = (across(millis.log10()), up(rank as f64 / count as f64));
        let first = path.is_empty();
        let _ = if first {
            write!(path, "M{x:.1} {:.1}V{y:.1}", up(0.0))
        } else {
            write!(path, "H{x:.1}V{y:.1}")
        };
    }
    path
}

fn across(power: f64) -> f64 {
    let share = (power - f64::from(FIRST)) / f64::from(LAST - FIRST);
    LEFT + WIDTH * share.clamp(0.0, 1.0)
}

fn up(share: f64) -> f64 {
    TOP + HEIGHT * (1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_from_nothing_to_all_of_it() {
        let spans = (1..=1000).map(Duration::from_millis).collect();
        let line = Line {
            label: "here",
            color: "#06c",
            spans,
        };
        let picture = svg("times", &[line]);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("here (1000)"));
        let top = format!("V{:.1}\"", up(1.0));
        assert!(picture.contains(&top), "it ends at the top: {picture}");
        assert!(picture.len() < 8000, "{} bytes", picture.len());
    }

    #[test]
    fn no_spans_are_no_line_and_no_failure() {
        let line = Line {
            label: "naive",
            color: "#c00",
            spans: Vec::new(),
        };
        assert!(svg("times", &[line]).contains(r#"<path d="" "#));
    }
}
