//! Charts over time as SVG: no more than what the soak needs.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;

/// Lines that share their axes. Both begin at zero.
#[derive(Debug)]
pub struct Chart<'a> {
    /// Above it.
    pub title: String,
    /// What is drawn.
    pub lines: Vec<Line<'a>>,
    /// Minutes at which something happened.
    pub marks: &'a [f64],
    /// How long it is.
    pub minutes: f64,
}

/// One of the lines.
#[derive(Debug)]
pub struct Line<'a> {
    /// In the legend.
    pub name: &'static str,
    /// As CSS has it.
    pub color: &'static str,
    /// Minute and value.
    pub points: &'a [(f64, f64)],
}

/// The charts, one below the other.
pub fn svg(charts: &[Chart<'_>]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (nth, chart) in charts.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", HEIGHT * nth as f64);
        chart.draw(&mut svg);
        svg.push_str("</g>\n");
    }
    svg + "</svg>\n"
}

impl Chart<'_> {
    fn draw(&self, svg: &mut String) {
        let most =
            self.lines.iter().flat_map(|line| line.points).map(|(_, value)| *value).fold(0.0, f64::max);
        let (step, top) = ticks(most);
        let length = self.minutes.max(0.1);
        let x = |minute: f64| LEFT + (WIDTH - LEFT - RIGHT) * (minute / length).clamp(0.0, 1.0);
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>", self.title);
        for tick in (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= top * 1.001) {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        let (step, _) = ticks(length);
        for tick in (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= length * 1.001) {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{} min</text>",
                x(tick),
                bottom + 18.0,
                short(tick)
            );
        }
        for mark in self.marks {
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {TOP}V{bottom}\" stroke=\"#999\" stroke-dasharray=\"4 3\"/>",
                x(*mark)
            );
        }
        for (nth, line) in self.lines.iter().enumerate() {
            let points: Vec<String> =
                line.points.iter().map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
                 <text x=\"{}\" y=\"18\" fill=\"{color}\" text-anchor=\"end\">{}</text>",
                points.join(" "),
                right - 50.0 * nth as f64,
                line.name,
                color = line.color
            );
        }
    }
}

/// About five round steps up to `most`, and where the axis ends.
fn ticks(most: f64) -> (f64, f64) {
    let rough = (most / 5.0).max(1e-3);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (step, (most / step).ceil().max(1.0) * step)
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_steps_and_room_for_all() {
        for most in [0.0, 0.7, 1.0, 9.9, 30.0, 171.3, 2e6] {
            let (step, top) = ticks(most);
            assert!(top >= most && top / step <= 6.0, "{most}: {step} {top}");
        }
        assert_eq!(ticks(30.0), (10.0, 30.0));
        assert_eq!([0.0, 0.5, 10.0, 200.0].map(short), ["0", "0.5", "10", "200"]);
    }
}
