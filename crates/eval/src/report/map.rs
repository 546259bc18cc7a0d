//! A map of images as SVG: a point each, coloured by class, with the image's name on hover.

use std::fmt::Write;

use simclr_words::text::counted;

use super::html::escape;

/// Side of the drawing, in its own units.
const SIDE: f64 = 360.0;
/// The margin around the points.
const EDGE: f64 = 8.0;
/// Radius of a point: of the many of a full map, and of the few of a small one.
const RADIUS: [f64; 2] = [2.4, 6.0];
/// Classes that are named beside their colour; of more, hovering tells.
const NAMED: usize = 24;

/// Images as points of a plane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassMap {
    /// Heading.
    pub title: String,
    /// The names of the classes; empty if images have no classes.
    pub classes: Vec<String>,
    /// The images.
    pub points: Vec<MapPoint>,
}

/// An image on a map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MapPoint {
    /// Its position; only distances are meaningful.
    pub x: f32,
    /// Likewise.
    pub y: f32,
    /// Its class; 0 without classes.
    pub class: usize,
    /// Its name, without folders: a page has thousands.
    pub name: String,
}

impl ClassMap {
    /// The map as a `<figure>`; nothing without points.
    pub(super) fn render(&self) -> String {
        let Some(window) = Window::of(&self.points) else { return String::new() };
        let circle = |point: &MapPoint, class: &str| {
            let name: Vec<String> =
                [class, &point.name].into_iter().filter(|word| !word.is_empty()).map(escape).collect();
            window.circle(point, &name.join(", "))
        };
        let mut out = format!(
            "<figure class=\"chart map\"><figcaption>{}</figcaption>\n<svg viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"{0}\">\n",
            escape(&self.title)
        );
        if self.classes.is_empty() {
            out.push_str("<g class=\"c0\" fill=\"var(--c)\">");
            self.points.iter().for_each(|point| out += &circle(point, ""));
            out.push_str("</g>\n");
        }
        for (class, name) in self.classes.iter().enumerate() {
            let mut own = self.points.iter().filter(|point| point.class == class).peekable();
            if own.peek().is_none() {
                continue;
            }
            let _ = write!(out, "<g fill=\"{}\">", colour(class, self.classes.len()));
            own.for_each(|point| out += &circle(point, name));
            out.push_str("</g>\n");
        }
        out + "</svg></figure>\n"
    }
}

/// The section of all maps, with a key to the colours.
pub(super) fn section(maps: &[ClassMap]) -> String {
    let Some(first) = maps.first() else { return String::new() };
    let mut out = format!(
        "<section>\n<h2>Maps</h2>\n<p>{} by t-SNE: images that the network finds similar lie close together. Hover over a point for the name of its image.</p>\n",
        counted(first.points.len(), if first.classes.is_empty() { "image" } else { "test image" })
    );
    if (1..=NAMED).contains(&first.classes.len()) {
        out.push_str("<p class=\"key\">");
        for (class, name) in first.classes.iter().enumerate() {
            let _ = write!(
                out,
                "<span><i style=\"background:{}\"></i> {}</span> ",
                colour(class, first.classes.len()),
                escape(name)
            );
        }
        out.push_str("</p>\n");
    }
    out.push_str("<div class=\"charts maps\">\n");
    maps.iter().for_each(|map| out += &map.render());
    out + "</div>\n</section>\n"
}

/// Hues spread evenly around the circle; adjacent classes differ in lightness.
fn colour(class: usize, classes: usize) -> String {
    let hue = 360.0 * class as f64 / classes.max(1) as f64;
    format!("hsl({hue:.0} 70% {}%)", [42, 60][class % 2])
}

/// The square region of the plane that is drawn.
struct Window {
    left: f64,
    top: f64,
    scale: f64,
    /// Of a point.
    radius: f64,
}

impl Window {
    fn of(points: &[MapPoint]) -> Option<Window> {
        let range = |values: &dyn Fn(&MapPoint) -> f32| {
            let values = || points.iter().map(|point| f64::from(values(point)));
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
        };
        let ((left, right), (top, bottom)) = (range(&|point| point.x), range(&|point| point.y));
        if !(right >= left && bottom >= top) {
            return None;
        }
        let side = (right - left).max(bottom - top).max(1e-30);
        let middle = |low: f64, high: f64| (low + high - side) / 2.0;
        Some(Window {
            left: middle(left, right),
            top: middle(top, bottom),
            scale: (SIDE - 2.0 * EDGE) / side,
            // So that all together cover about the same part of the drawing.
            radius: (0.21 * SIDE / (points.len() as f64).sqrt()).clamp(RADIUS[0], RADIUS[1]),
        })
    }

    fn circle(&self, point: &MapPoint, title: &str) -> String {
        let along = |value: f32, low: f64| EDGE + (f64::from(value) - low) * self.scale;
        let (x, y) = (along(point.x, self.left), along(point.y, self.top));
        let radius = self.radius;
        format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"><title>{title}</title></circle>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fill_the_drawing_and_names_stay_names() {
        let point = |x, y, class| MapPoint { x, y, class, name: "<1>.jpg".to_owned() };
        let map = ClassMap {
            title: "h".to_owned(),
            classes: vec!["<b>".to_owned(), "empty".to_owned(), "c".to_owned()],
            points: vec![point(-1.0, 5.0, 0), point(3.0, 5.0, 2), point(1.0, 6.0, 2)],
        };
        let svg = map.render();
        for words in [
            "cx=\"8.0\" cy=\"137.0\"",
            "cx=\"352.0\"",
            "<title>&lt;b&gt;, &lt;1&gt;.jpg</title>",
            "<title>c, ",
        ] {
            assert!(svg.contains(words), "no {words} in {svg}");
        }
        assert!(!svg.contains("empty") && section(std::slice::from_ref(&map)).contains("empty"));
        // Of no class.
        let plain = section(&[ClassMap { classes: vec![], ..map.clone() }]);
        assert!(plain.matches("<circle").count() == 3 && plain.contains("<p>3 images by t-SNE"), "{plain}");
        assert!(plain.contains("<title>&lt;1&gt;.jpg</title>") && !plain.contains("\"key\""), "{plain}");
        // Few points are large, many small.
        let many = ClassMap { points: vec![point(1.0, 2.0, 0); 1000], ..map.clone() };
        assert!(plain.contains("r=\"6.0\"") && many.render().contains("r=\"2.4\""));
        // One place for all, and none.
        let one = ClassMap { points: vec![point(2.0, 2.0, 0); 3], ..map.clone() };
        assert!(one.render().contains("<circle") && !one.render().contains("NaN"));
        assert_eq!(ClassMap { points: vec![], ..map }.render(), "");
        assert_eq!(section(&[]), "");
    }
}
