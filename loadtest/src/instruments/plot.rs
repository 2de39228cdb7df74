//! Plots of a run over time, as SVG with a background of its own. The same data gives the same bytes.

use super::svg::{colored_text, line, polyline, rect, text};
use crate::bench::figures::figure;

const WIDTH: f64 = 960.0;
/// Of the area of one panel.
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
/// Above the first area, without the title.
const TOP: f64 = 56.0;
const TITLE_LINE: f64 = 16.0;
/// Characters of a line of the title.
const TITLE_CHARS: usize = 130;
/// Between the areas of two panels.
const GAP: f64 = 48.0;
const BAR: &str = "#1f2937";
const RULE: &str = "#d1d5db";
const COLORS: [&str; 4] = ["#0b62a8", "#c2410c", "#15803d", "#7e22ce"];

/// A diagram over the common time axis. Its value axis begins at zero.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
    /// Dashed horizontal lines.
    pub(crate) marks: Vec<(String, f64)>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Time in seconds and value, by time. Points that are not finite are left out.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A time with one background.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Band {
    pub(crate) tint: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// What all panels have in common.
#[derive(Debug)]
pub(crate) struct Drawing {
    /// The name of the bar below the panels. It begins at 0.
    pub(crate) bar: &'static str,
    /// In seconds.
    pub(crate) bar_ends: f64,
    pub(crate) bands: Vec<Band>,
    /// Names of the backgrounds.
    pub(crate) legend: Vec<(String, &'static str)>,
}

/// The range of the time axis. The bar begins at 0.
#[derive(Debug, Clone, Copy)]
struct Time {
    from: f64,
    to: f64,
    bar_ends: f64,
}

impl Time {
    fn x(self, at: f64) -> f64 {
        LEFT + (at - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT)
    }
}

impl Drawing {
    /// Draws the panels below each other, with the bands behind them.
    pub(crate) fn plot(&self, title: &str, panels: &[Panel]) -> String {
        plot(self, title, panels)
    }
}

fn plot(drawing: &Drawing, title: &str, panels: &[Panel]) -> String {
    let bands = &drawing.bands;
    let first = bands.first().map_or(0.0, |band| band.from).floor();
    let last = bands.last().map_or(first, |band| band.to).ceil();
    let to = last.max(first + 1.0);
    let time = Time { from: first, to, bar_ends: drawing.bar_ends.min(to) };
    let titles = wrap(title);
    let top = TOP + TITLE_LINE * figure(titles.len() as u64);
    let height = top + (HEIGHT + GAP) * figure(panels.len() as u64);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
"##
    );
    for (index, title) in titles.iter().enumerate() {
        text(&mut out, 12.0, 20.0 + TITLE_LINE * figure(index as u64), "start", title);
    }
    legend(&mut out, drawing, top - TOP);
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, bands, time, top + (HEIGHT + GAP) * figure(index as u64));
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, bands: &[Band], time: Time, top: f64) {
    let values = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let values = values.chain(panel.marks.iter().map(|(_, value)| *value)).filter(|value| value.is_finite());
    let step = step(values.fold(0.0, f64::max) / 4.0);
    let y = |value: f64| top + HEIGHT - value / (step * 4.0) * HEIGHT;
    for band in bands {
        let x = time.x(band.from);
        rect(out, x, top, time.x(band.to) - x, HEIGHT, band.tint);
    }
    let right = WIDTH - RIGHT;
    text(out, LEFT, top - 8.0, "start", &format!("{} ({})", panel.title, panel.unit));
    for tick in 0..=4 {
        let value = step * f64::from(tick);
        line(out, (LEFT, y(value)), (right, y(value)), RULE, "none");
        text(out, LEFT - 6.0, y(value) + 4.0, "end", &label(value));
    }
    time_axis(out, time, top);
    for (index, (name, value)) in panel.marks.iter().enumerate().filter(|(_, (_, value))| value.is_finite()) {
        line(out, (LEFT, y(*value)), (right, y(*value)), color(index), "5 4");
        name_line(out, panel.lines.len() + index, index, top, &format!("- - {name}"));
    }
    for (index, drawn) in panel.lines.iter().enumerate() {
        let finite = drawn.points.iter().filter(|(at, value)| at.is_finite() && value.is_finite());
        let points: Vec<String> =
            finite.map(|(at, value)| format!("{:.1},{:.1}", time.x(*at), y(*value))).collect();
        polyline(out, &points.join(" "), color(index));
        name_line(out, index, index, top, &drawn.name);
    }
}

/// Seconds below the panel, and a bar.
fn time_axis(out: &mut String, time: Time, top: f64) {
    let (x, y) = (time.x(0.0), top + HEIGHT);
    rect(out, x, y, time.x(time.bar_ends) - x, 4.0, BAR);
    let step = step((time.to - time.from) / 8.0);
    let mut at = (time.from / step).ceil() * step;
    while at <= time.to {
        text(out, time.x(at), y + 17.0, "middle", &format!("{} s", label(at)));
        line(out, (time.x(at), top), (time.x(at), y + 4.0), RULE, "none");
        at += step;
    }
}

fn legend(out: &mut String, drawing: &Drawing, top: f64) {
    rect(out, LEFT, top + 22.0, 14.0, 4.0, BAR);
    text(out, LEFT + 20.0, top + 28.0, "start", drawing.bar);
    let mut x = LEFT + 90.0;
    for (name, tint) in &drawing.legend {
        rect(out, x, top + 18.0, 14.0, 12.0, tint);
        text(out, x + 20.0, top + 28.0, "start", name);
        x += 90.0;
    }
}

/// The name of a line, to the right of its panel.
fn name_line(out: &mut String, row: usize, index: usize, top: f64, name: &str) {
    let place = (WIDTH - RIGHT + 10.0, top + 12.0 + 18.0 * figure(row as u64));
    colored_text(out, place, "start", color(index), name);
}

/// Splits a text between words.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < TITLE_CHARS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

/// The least of 1, 2, 5, 10 … that is not less; also below 1.
fn step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|step| *step >= least)
        .unwrap_or(decade * 10.0)
}

/// A value of an axis, without noise of binary fractions.
fn label(value: f64) -> String {
    // A negative zero becomes a positive one.
    let value = value + 0.0;
    match value.abs() {
        large if large >= 1e6 => format!("{} M", (value / 1e3).round() / 1e3),
        large if large >= 1e4 => format!("{} k", (value / 10.0).round() / 100.0),
        _ => format!("{}", (value * 1e4).round() / 1e4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(points: Vec<(f64, f64)>) -> String {
        let line = Line { name: "a<b".to_owned(), points };
        let marks = vec![("quiet".to_owned(), 0.7), ("unknown".to_owned(), f64::NAN)];
        let panel = Panel { title: "x & y".to_owned(), unit: "ms", lines: vec![line], marks };
        let bands =
            [Band { tint: "#ffffff", from: -2.0, to: 1.0 }, Band { tint: "#fecaca", from: 1.0, to: 9.0 }];
        let legend = vec![("blazing".to_owned(), "#fecaca")];
        let drawing = Drawing { bar: "storm", bar_ends: 5.0, bands: bands.to_vec(), legend };
        drawing.plot(r#"hot --server "madang serve""#, &[panel])
    }

    /// Checks that tags are closed in order and that text contains no markup.
    fn check_xml(xml: &str) {
        let mut open = Vec::new();
        let mut rest = xml;
        while let Some(at) = rest.find('<') {
            assert!(!rest[..at].contains('>'), "{}", &rest[..at]);
            let end = rest.find('>').unwrap();
            let tag = &rest[at + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().unwrap()),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty());
    }

    #[test]
    fn plots_are_xml_and_contain_no_undefined_numbers() {
        let nothing = example(Vec::new());
        let empty = Drawing { bar: "storm", bar_ends: 60.0, bands: Vec::new(), legend: Vec::new() };
        let some = example(vec![(-2.0, 1.0), (0.0, f64::NAN), (f64::INFINITY, 3.0), (9.0, 1_234_567.0)]);
        for xml in [nothing, some, empty.plot(&"a b ".repeat(200), &[])] {
            check_xml(&xml);
            assert!(!xml.contains("NaN") && !xml.contains("inf"), "{xml}");
        }
    }

    #[test]
    fn the_same_data_gives_the_same_plot() {
        let points = vec![(0.0, 1.0), (1.0, 2.5)];
        let svg = example(points.clone());
        assert_eq!(svg, example(points));
        assert!(svg.contains("#fecaca") && svg.contains("a&lt;b") && svg.contains(">storm<"));
    }

    #[test]
    fn axes_have_round_steps() {
        let steps: Vec<f64> = [0.0, 0.03, 1.0, 2.1, 7.0, 480_000.0].into_iter().map(step).collect();
        assert_eq!(steps, [1.0, 0.05, 1.0, 5.0, 10.0, 500_000.0]);
        assert_eq!([-0.0, 0.15, 20_000.0, 1_500_000.0].map(label), ["0", "0.15", "20 k", "1.5 M"]);
    }
}
