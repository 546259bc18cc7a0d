//! A line chart as SVG: axes, grid, lines named at their ends, values on hover.

use std::fmt::Write;

use simclr_words::text::{percent, short};

use super::html::escape;

/// Size of the drawing, in its own units; it is scaled to the width of its column.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 206.0;
/// Margins for the values on the left, the names of the lines on the right, and the epochs below.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 30.0;
/// The most points drawn per line; longer series are averaged in groups, and their range is shaded.
const POINTS: usize = 100;
/// The most points of a line that react to hovering.
const HOVERED: usize = 60;
/// Least distance between the names of two lines, each with its value below.
const NAME: f64 = 33.0;
/// Where the name of the axis below begins, right of its end: clear of a number like 10,000 there.
const EPOCH: f64 = 24.0;

/// A chart of one or several lines over the epochs.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// Heading.
    pub title: String,
    /// A few words on what good looks like.
    pub note: String,
    /// The lines.
    pub series: Vec<Series>,
    /// Values are fractions, shown as percentages.
    pub percent: bool,
    /// The axis of values begins at 0.
    pub from_zero: bool,
}

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// Its name; may be empty where there is one line.
    pub name: String,
    /// (epoch, value), in order of the epoch, finite.
    pub points: Vec<(f64, f64)>,
    /// What the last epoch tells, as (epoch, value): what a noisy line is said to have reached. Without it the line is
    /// said to have reached the mean of its last points.
    pub end: Option<(f64, f64)>,
}

/// A line as it is drawn.
struct Drawn<'a> {
    series: &'a Series,
    groups: Vec<Group>,
}

/// Neighbouring points of a series as one.
struct Group {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

impl Drawn<'_> {
    /// Where the end is marked and named: (epoch, value).
    fn end(&self) -> Option<(f64, f64)> {
        self.series.end.or_else(|| self.groups.last().map(|group| (group.x, group.mean)))
    }
}

impl Chart {
    /// The chart as a `<figure>`; nothing where no line has a point.
    pub(super) fn render(&self) -> String {
        let lines: Vec<Drawn<'_>> = (self.series.iter())
            .filter(|series| !series.points.is_empty())
            .map(|series| Drawn { series, groups: group(&series.points) })
            .collect();
        let points = || {
            let all = lines.iter().map(|line| line.series);
            all.flat_map(|series| series.points.iter().chain(&series.end))
        };
        let Some(last) = points().map(|point| point.0).reduce(f64::max) else { return String::new() };
        let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let x_axis =
            Axis { low: 0.0, high: if last > 0.0 { last } else { 1.0 }, step: nice_step(last.max(1e-9), 6) };
        let y_axis = Axis::around(if self.from_zero { low.min(0.0) } else { low }, high);
        let x = |value: f64| LEFT + x_axis.place(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - y_axis.place(value) * (HEIGHT - BOTTOM - TOP);

        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        for tick in y_axis.ticks() {
            let at = y(tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                at + 4.0,
                self.tick(tick, y_axis.step),
            );
        }
        let floor = HEIGHT - BOTTOM;
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {floor}H{:.1}\"/>", WIDTH - RIGHT);
        for tick in x_axis.ticks() {
            let at = x(tick);
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{at:.1} {floor}v4\"/><text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                floor + 18.0,
                label(tick, x_axis.step),
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">epoch</text>",
            WIDTH - RIGHT + EPOCH,
            floor + 18.0
        );
        for (number, line) in lines.iter().enumerate() {
            self.draw_line(&mut svg, number, line, x, y);
        }
        self.draw_names(&mut svg, &lines, y);
        svg.push_str("</svg>\n");
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!(" <span>{}</span>", escape(&self.note))
        };
        format!(
            "<figure class=\"chart\">\n<figcaption>{}{note}</figcaption>\n{svg}</figure>\n",
            escape(&self.title)
        )
    }

    fn draw_line(
        &self,
        svg: &mut String,
        number: usize,
        line: &Drawn<'_>,
        x: impl Fn(f64) -> f64,
        y: impl Fn(f64) -> f64,
    ) {
        let (colour, Drawn { series, groups }) = (number % 3, line);
        if groups.len() < series.points.len() {
            let above = groups.iter().map(|g| format!("{:.1} {:.1}", x(g.x), y(g.high)));
            let below = groups.iter().rev().map(|g| format!("{:.1} {:.1}", x(g.x), y(g.low)));
            let outline: Vec<String> = above.chain(below).collect();
            let _ = writeln!(svg, "<path class=\"band c{colour}\" d=\"M{}Z\"/>", outline.join("L"));
        }
        let path: Vec<String> = groups.iter().map(|g| format!("{:.1} {:.1}", x(g.x), y(g.mean))).collect();
        let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"M{}\"/>", path.join("L"));
        let name = if series.name.is_empty() { String::new() } else { format!("{}, ", escape(&series.name)) };
        let mut dot = |class: &str, (epoch, value): (f64, f64)| {
            let _ = writeln!(
                svg,
                "<g class=\"point c{colour}{class}\"><circle class=\"dot\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\"/><circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"8\"><title>{name}epoch {}: {}</title></circle></g>",
                short(epoch),
                self.value(value),
                px = x(epoch),
                py = y(value),
            );
        };
        let every = groups.len().div_ceil(HOVERED);
        // The last has a dot of its own, which is always seen.
        for group in groups[..groups.len().saturating_sub(1)].iter().step_by(every.max(1)) {
            dot("", (group.x, group.mean));
        }
        if let Some(end) = line.end() {
            dot(" end", end);
        }
    }

    /// Names and last values right of where the lines end, pushed apart where they would cover each other.
    fn draw_names(&self, svg: &mut String, lines: &[Drawn<'_>], y: impl Fn(f64) -> f64) {
        let mut names: Vec<(f64, usize)> = (lines.iter().enumerate())
            .filter_map(|(number, line)| Some((y(line.end()?.1), number)))
            .collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP + 8.0;
        for (at, _) in &mut names {
            *at = at.max(free);
            free = *at + NAME;
        }
        // Names pushed below the drawing push the others up again.
        let mut floor = HEIGHT - BOTTOM - 4.0;
        for (at, number) in names.iter_mut().rev() {
            *at = at.min(floor);
            floor = *at - NAME;
            let line = &lines[*number];
            let value = line.end().map(|(_, value)| self.value(value)).unwrap_or_default();
            let (left, colour) = (WIDTH - RIGHT + 12.0, *number % 3);
            let name = escape(&line.series.name);
            let value_at = if name.is_empty() { *at + 4.0 } else { *at + 11.0 };
            if !name.is_empty() {
                let _ = writeln!(
                    svg,
                    "<text class=\"name c{colour}\" x=\"{left}\" y=\"{:.1}\">{name}</text>",
                    *at - 4.0
                );
            }
            let _ = writeln!(
                svg,
                "<text class=\"value c{colour}\" x=\"{left}\" y=\"{value_at:.1}\">{value}</text>"
            );
        }
    }

    fn tick(&self, value: f64, step: f64) -> String {
        if self.percent { format!("{}%", label(100.0 * value, 100.0 * step)) } else { label(value, step) }
    }

    fn value(&self, value: f64) -> String {
        if self.percent { percent(value) } else { short(value) }
    }
}

/// At most [`POINTS`] groups of neighbouring points, of equal sizes but for one point: a small group at the end would
/// be more noise than the others, and would be taken for what the line has reached.
fn group(points: &[(f64, f64)]) -> Vec<Group> {
    let of = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        Group {
            x: points.iter().map(|p| p.0).sum::<f64>() / count,
            mean: points.iter().map(|p| p.1).sum::<f64>() / count,
            low: points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min),
            high: points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max),
        }
    };
    let count = points.len().min(POINTS);
    (0..count).map(|i| of(&points[i * points.len() / count..(i + 1) * points.len() / count])).collect()
}

/// The range of values along an axis, and the distance between ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// An axis that ends in ticks and spans `low` to `high`.
    fn around(low: f64, high: f64) -> Axis {
        // A flat line gets some height.
        let room = if high > low { 0.0 } else { (0.1 * high.abs()).max(1e-3) };
        let (low, high) = (if low == 0.0 { 0.0 } else { low - room }, high + room);
        let step = nice_step(high - low, 5);
        Axis { low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step, step }
    }

    /// 0 at the low end, 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let count = ((self.high / self.step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
        (0..=count).map(|i| (first + i as f64) * self.step).collect()
    }
}

/// The text of a tick, with enough digits to tell it from the next one, `step` away.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10() - 1e-9).ceil();
    // Three significant digits suffice, or the step would need too many decimals.
    if value.abs() < 500.0 * step || !(0.0..=6.0).contains(&decimals) {
        return short(value);
    }
    let decimals = decimals as usize;
    format!("{value:.decimals$}")
}

/// 1, 2 or 5 times a power of ten, so that about `ticks` steps cover `range`.
fn nice_step(range: f64, ticks: u32) -> f64 {
    let rough = range / f64::from(ticks);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= rough * 0.999).unwrap_or(10.0);
    step * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "held out".to_owned(), points, end: None }];
        Chart { title: "t".to_owned(), note: String::new(), series, percent: true, from_zero: true }
    }

    #[test]
    fn steps_are_round() {
        for (range, ticks, expected) in
            [(1.0, 5, 0.2), (10.0, 6, 2.0), (7.3, 5, 2.0), (0.03, 5, 0.01), (100.0, 6, 20.0)]
        {
            assert!((nice_step(range, ticks) - expected).abs() < 1e-12, "{range}");
        }
        let axis = Axis::around(0.0, 0.87);
        assert_eq!((axis.low, axis.high), (0.0, 1.0));
        assert_eq!(axis.ticks().len(), 6);
    }

    #[test]
    fn ticks_differ() {
        for (low, high) in
            [(33.928, 34.0), (0.0, 0.87), (1203.4, 1203.9), (0.012, 0.0121), (5.0, 9e5), (-1e-9, 1e9)]
        {
            let axis = Axis::around(low, high);
            let mut labels: Vec<String> = axis.ticks().iter().map(|tick| label(*tick, axis.step)).collect();
            let count = labels.len();
            labels.dedup();
            assert_eq!(labels.len(), count, "{low} to {high}: {labels:?}");
        }
        let axis = Axis::around(33.928, 34.0);
        assert_eq!(label(axis.ticks()[0], axis.step), "33.92");
    }

    #[test]
    fn odd_series_are_drawn_within_the_frame() {
        let long = (0..5000).map(|i| (f64::from(i) / 100.0, f64::from(i % 7))).collect();
        for points in [
            vec![(1.0, 0.5)],
            vec![(0.0, 0.0)],
            vec![(1.0, 3.0), (2.0, 3.0)],
            vec![(1.0, -1e-9), (1e6, 1e9)],
            long,
        ] {
            let svg = chart(points).render();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            for text in svg.split("cy=\"").skip(1) {
                let at: f64 = text.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=HEIGHT).contains(&at), "{at}");
            }
        }
        assert_eq!(chart(vec![]).render(), "");
    }

    #[test]
    fn words_do_not_touch() {
        let mut chart = chart(vec![(1000.0, 0.5), (10_000.0, 1.0)]);
        let other = |name: &str| Series { name: name.to_owned(), ..chart.series[0].clone() };
        chart.series = vec![other("a"), other("b"), other("c")];
        let svg = chart.render();
        let number = |text: &str, key: &str| -> f64 {
            let rest = text.split_once(&format!("{key}=\"")).unwrap().1;
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let words = |class: &'static str| svg.lines().filter(move |line| line.contains(class));
        let mut heights: Vec<f64> =
            words("\"name c").chain(words("\"value c")).map(|line| number(line, "y")).collect();
        heights.sort_by(f64::total_cmp);
        assert!(
            heights.len() == 6 && heights.windows(2).all(|pair| pair[1] - pair[0] >= 15.0),
            "{heights:?}"
        );
        // A digit is some 7 wide, a comma less.
        let (tick, name) = (words(">10,000</text>").next().unwrap(), words(">epoch</text>").next().unwrap());
        let tick = tick.split_once("<text").unwrap().1;
        assert!(number(name, " x") - number(tick, " x") >= 2.75 * 7.0 + 4.0, "{svg}");
    }

    #[test]
    fn long_series_are_averaged() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), f64::from(i % 5))).collect();
        let groups = group(&points);
        assert_eq!(groups.len(), POINTS);
        assert_eq!((groups[0].x, groups[0].mean, groups[0].low, groups[0].high), (4.5, 2.0, 0.0, 4.0));
        // The last group is not what is left over.
        let points: Vec<(f64, f64)> = (0..2025).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let groups = group(&points);
        assert!(groups.iter().all(|group| (0.4..=0.6).contains(&group.mean)) && groups.len() == POINTS);
        assert!(groups.iter().all(|group| group.low == 0.0 && group.high == 1.0));
    }

    #[test]
    fn a_line_is_named_by_the_mean_of_its_last_epoch() {
        let mut chart = chart((0..2025).map(|i| (f64::from(i) / 100.0, f64::from(i % 2))).collect());
        chart.series[0].end = Some((20.0, 0.261));
        let svg = chart.render();
        assert!(svg.contains("held out, epoch 20: 26.1%"), "{svg}");
        assert_eq!(svg.matches("point c0 end").count(), 1);
        assert!(svg.lines().any(|line| line.contains("\"value c0\"") && line.contains(">26.1%<")), "{svg}");
    }
}
