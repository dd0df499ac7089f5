//! Writes the few shapes that a chart needs.
//!
//! Knows no figures. Colours are such that they can be read on white and on
//! black.

use std::fmt::{Display, Write};

/// One for each line or kind of dot.
pub(crate) const COLOURS: [&str; 5] = ["#2f7ed8", "#3a9d5d", "#d98324", "#c2403d", "#8a5cc2"];

pub(crate) struct Svg(String);

impl Svg {
    pub(crate) fn new(title: &str, width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<title>{title}</title>\n\
             <style>text{{fill:#6e7781}}.line{{stroke:#8c959f55}}.fault{{fill:#8c959f22}}\
             polyline{{fill:none;stroke-width:1.6}}\
             @media(prefers-color-scheme:dark){{text{{fill:#9198a1}}}}</style>\n"
        ))
    }

    fn put(&mut self, shape: impl Display) {
        writeln!(self.0, "{shape}").expect("a String takes all text");
    }

    /// A thin line of the grid.
    pub(crate) fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.put(format_args!(
            "<line class=\"line\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// The time of a fault.
    pub(crate) fn fault(&mut self, [x, y]: [f64; 2], width: f64, height: f64) {
        self.put(format_args!(
            "<rect class=\"fault\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"/>"
        ));
    }

    /// `anchor`: `start`, `middle` or `end`.
    pub(crate) fn text(&mut self, [x, y]: [f64; 2], anchor: &str, text: impl Display) {
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    pub(crate) fn heading(&mut self, [x, y]: [f64; 2], text: &str) {
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-weight=\"bold\">{text}</text>"
        ));
    }

    pub(crate) fn dot(&mut self, [x, y]: [f64; 2], colour: &str) {
        self.put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"));
    }

    pub(crate) fn polyline(&mut self, points: impl Iterator<Item = [f64; 2]>, colour: &str) {
        let points: Vec<_> = points.map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.put(format_args!("<polyline stroke=\"{colour}\" points=\"{points}\"/>"));
    }

    /// What the colours mean, in one row.
    pub(crate) fn legend(&mut self, [mut x, y]: [f64; 2], names: &[&str]) {
        for (name, colour) in names.iter().zip(COLOURS) {
            self.dot([x, y - 4.0], colour);
            self.text([x + 9.0, y], "start", name);
            x += 32.0 + 6.6 * name.len() as f64;
        }
    }

    pub(crate) fn end(mut self) -> String {
        self.put("</svg>");
        self.0
    }
}
