//! The elements of an SVG text, with numbers in tenths so that the same data gives the same bytes.

use std::fmt::Write;

pub(super) fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, fill: &str) {
    put(
        out,
        format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        ),
    );
}

pub(super) fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str, dashes: &str) {
    let place = format!(r#"x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}""#);
    put(out, format_args!(r#"<line {place} stroke="{stroke}" stroke-dasharray="{dashes}"/>"#));
}

pub(super) fn polyline(out: &mut String, points: &str, stroke: &str) {
    put(
        out,
        format_args!(r#"<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="1.5"/>"#),
    );
}

/// `anchor`: the part of the text that is at `x`.
pub(super) fn text(out: &mut String, x: f64, y: f64, anchor: &str, said: &str) {
    colored_text(out, (x, y), anchor, "#1f2937", said);
}

pub(super) fn colored_text(out: &mut String, (x, y): (f64, f64), anchor: &str, fill: &str, said: &str) {
    let said = escape(said);
    put(
        out,
        format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{fill}">{said}</text>"#),
    );
}

fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{element}");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
