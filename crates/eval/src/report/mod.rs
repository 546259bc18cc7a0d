//! A run as one self-contained HTML page: figures, accuracies, curves, neighbours, configuration.
//!
//! Everything is inline (style, SVG, pictures as PNG in base64): no scripts, no requests. Texts are escaped, so that a
//! file named `<script>` stays a name.
//!
//! | file | |
//! |---|---|
//! | [`history`] | `metrics.jsonl` as series |
//! | `chart` | a line chart as SVG |
//! | `curves` | which series go on which chart |
//! | `sections` | tables, bars, pictures, lists |
//! | `study` | the page of an ablation study |
//! | `map` | images as points, as SVG |
//! | `kept` | the part with images, for the next page |
//! | `picture` | RGB pixels as an inline PNG |
//! | `html` | escaping, numbers |

mod chart;
mod curves;
pub mod history;
pub(crate) mod html;
pub(crate) mod kept;
mod map;
mod picture;
mod sections;
mod study;

pub use history::History;
pub(crate) use map::{ClassMap, MapPoint};
pub(crate) use picture::Picture;
pub use picture::PictureError;
pub use study::study_page;

use simclr_data::Skipped;

use crate::protocols::Probe;

/// The contents of a page, made by [`assemble_report`](crate::protocols::assemble_report). Empty parts are left out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Heading and title of the page.
    pub(crate) title: String,
    /// A sentence under the heading: what was trained, on what.
    pub(crate) subtitle: String,
    /// The name of the trained encoder in tables.
    pub(crate) encoder: String,
    /// Figures at the top.
    pub(crate) figures: Vec<Figure>,
    /// Accuracies by protocol.
    pub(crate) accuracy: Vec<AccuracyRow>,
    /// Results on other data sets.
    pub(crate) transfer: Transfer,
    /// What h and z retain of transformations of the image.
    pub(crate) probe: Option<Probe>,
    /// The records of the training.
    pub(crate) history: History,
    /// Training steps of the encoder that made neighbours and maps.
    pub(crate) step: u64,
    /// The part with images of an earlier page, shown if this one has none.
    pub(crate) kept: String,
    /// The number of classes of the images among which neighbours are shown.
    pub(crate) classes: usize,
    /// Nearest neighbours of some images.
    pub(crate) neighbours: Vec<NeighbourRow>,
    /// Maps of the images.
    pub(crate) maps: Vec<ClassMap>,
    /// Accuracy of each class, by each protocol.
    pub(crate) per_class: Vec<PerClass>,
    /// The resolved configuration, as TOML.
    pub(crate) config: String,
    /// Files that were skipped.
    pub(crate) skipped: Vec<Skipped>,
}

/// A figure with its name, such as "kNN", "56.4%".
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// What it is.
    pub label: String,
    /// The figure, formatted.
    pub value: String,
    /// What to compare it with, and what it was measured on: a line each.
    pub notes: Vec<String>,
}

/// Top-1 and top-5 accuracy, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TopAccuracy {
    /// Fraction of images whose class got the highest score.
    pub top1: f64,
    /// Fraction whose class was among the five likeliest; `None` with five classes or fewer.
    pub top5: Option<f64>,
}

/// A protocol's accuracies, of the trained and of a randomly initialised encoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccuracyRow {
    /// The protocol, such as "kNN".
    pub protocol: String,
    /// Its settings, such as "k = 200", or empty.
    pub settings: String,
    /// The test images, in words.
    pub data: String,
    /// The trained encoder.
    pub simclr: Option<TopAccuracy>,
    /// The same network before training.
    pub random: Option<TopAccuracy>,
}

/// Results of an encoder on other data sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Transfer {
    /// A line per data set and protocol.
    pub rows: Vec<TransferRow>,
    /// The network of the paper's results.
    pub papers_network: String,
}

/// The results of a protocol on a data set, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferRow {
    /// The data set.
    pub set: String,
    /// Training steps of the encoder, if it is not the newest checkpoint.
    pub step: Option<u64>,
    /// The protocol.
    pub protocol: String,
    /// The name of the metric.
    pub metric: String,
    /// The result of the trained encoder.
    pub simclr: Option<f64>,
    /// The result of the same network before training.
    pub random: Option<f64>,
    /// The paper's results for another network: pretrained by SimCLR, pretrained with labels and, where training from
    /// scratch stands beside fine-tuning, that; of training from scratch alone only that; empty for other data sets.
    pub paper: Vec<f64>,
}

impl TransferRow {
    /// The paper's results in per cent, such as "92.1, 91.4, 91.3%".
    pub fn published(&self) -> Option<String> {
        let figures: Vec<String> = self.paper.iter().map(|figure| format!("{:.1}", 100.0 * figure)).collect();
        (!figures.is_empty()).then(|| format!("{}%", figures.join(", ")))
    }
}

/// Accuracies of classes by one protocol.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PerClass {
    /// The protocol.
    pub protocol: String,
    /// The test images, in words.
    pub data: String,
    /// A warning about the accuracies, or empty.
    pub warning: String,
    /// The classes.
    pub classes: Vec<ClassAccuracy>,
}

/// The accuracy of a class, as fractions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassAccuracy {
    /// The class.
    pub class: String,
    /// Its test images.
    pub images: u64,
    /// With the trained encoder.
    pub simclr: f64,
    /// With the random encoder.
    pub random: Option<f64>,
}

/// An image and those that the encoder finds most similar.
#[derive(Debug, Clone)]
pub(crate) struct NeighbourRow {
    /// The image.
    pub query: Picture,
    /// Its neighbours, nearest first, with their cosine similarities.
    pub neighbours: Vec<(Picture, f64)>,
}

impl Report {
    /// The page.
    pub fn render(&self) -> String {
        let shown = sections::neighbours(&self.neighbours, self.classes) + &map::section(&self.maps);
        let images = if shown.is_empty() { &self.kept } else { &shown };
        let parts = [
            sections::figures(&self.figures),
            sections::accuracy(&self.accuracy, &self.encoder),
            sections::transfer(&self.transfer, &self.encoder),
            self.probe.as_ref().map_or(String::new(), sections::probe),
            curves::section(&self.history),
            kept::marked(self.step, images),
            sections::per_class(&self.per_class, &self.encoder),
            sections::config("Configuration", &self.config),
            sections::skipped(&self.skipped),
        ];
        html::page(&self.title, &self.subtitle, &parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::{ProbeRow, Transformation};

    const EVIL: &str = "<script>alert('1')</script>\"&\u{1b}[31m\u{202e}";

    fn full() -> Report {
        let picture = || Picture::new(2, 2, &[120; 12], EVIL.to_owned(), Some(EVIL.to_owned())).unwrap();
        Report {
            title: EVIL.to_owned(),
            subtitle: EVIL.to_owned(),
            encoder: EVIL.to_owned(),
            figures: vec![Figure {
                label: EVIL.to_owned(),
                value: EVIL.to_owned(),
                notes: vec![EVIL.to_owned()],
            }],
            accuracy: vec![AccuracyRow {
                protocol: EVIL.to_owned(),
                settings: EVIL.to_owned(),
                data: EVIL.to_owned(),
                simclr: Some(TopAccuracy { top1: 0.5, top5: Some(0.75) }),
                random: Some(TopAccuracy { top1: 0.25, top5: None }),
            }],
            transfer: Transfer {
                rows: vec![TransferRow {
                    set: EVIL.to_owned(),
                    step: Some(7),
                    protocol: EVIL.to_owned(),
                    metric: EVIL.to_owned(),
                    simclr: Some(0.5),
                    random: None,
                    paper: vec![0.9],
                }],
                papers_network: EVIL.to_owned(),
            },
            probe: Some(Probe {
                step: 7,
                data: Some(EVIL.to_owned()),
                seed: 0,
                train_images: 9,
                validation_images: None,
                test_images: 9,
                skipped: 0,
                rows: vec![ProbeRow {
                    transformation: Transformation::Gray,
                    chance: 0.8,
                    h: 0.9,
                    h_interval: None,
                    z: None,
                    z_interval: None,
                }],
            }),
            history: History::parse(b"{\"kind\":\"step\",\"step\":1,\"epoch\":0.5,\"loss\":5.5}\n"),
            step: 7,
            kept: String::new(),
            classes: 2,
            neighbours: vec![NeighbourRow { query: picture(), neighbours: vec![(picture(), 0.9)] }],
            maps: vec![ClassMap {
                title: EVIL.to_owned(),
                classes: vec![EVIL.to_owned()],
                points: vec![MapPoint { x: 0.0, y: 1.0, class: 0, name: EVIL.to_owned() }; 2],
            }],
            per_class: vec![PerClass {
                protocol: EVIL.to_owned(),
                data: EVIL.to_owned(),
                warning: EVIL.to_owned(),
                classes: vec![ClassAccuracy {
                    class: EVIL.to_owned(),
                    images: 9,
                    simclr: 0.5,
                    random: Some(0.1),
                }],
            }],
            config: EVIL.to_owned(),
            skipped: vec![Skipped { index: 0, name: EVIL.to_owned(), reason: EVIL.to_owned() }],
        }
    }

    #[test]
    fn texts_stay_texts() {
        let page = full().render();
        assert!(!page.contains("<script"));
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
        // Title twice, subtitle, the encoder six times, figure thrice, protocol with settings and data, transfer
        // four times, a probe's images, two pictures and their names, a map's title twice, its class once and at both
        // points, their names, class, its protocol, data and warning, configuration, skipped file twice.
        assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;").count(), 38);
        // Nothing is fetched from anywhere.
        for outside in ["http://", "https://", "url(", "@import", "<link"] {
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_next_page_keeps_what_is_shown_of_images() {
        let page = full().render();
        let (step, images) = kept::find(&page).unwrap();
        assert!(step == 7 && images.contains("<h2>Maps</h2>") && images.contains("data:image/png"));
        let next = Report { neighbours: vec![], maps: vec![], kept: images.to_owned(), ..full() };
        assert_eq!(next.render(), page);
    }

    #[test]
    fn what_is_left_out_is_said() {
        assert!(full().render().contains("These are of 1 of the 2 classes."));
        assert!(!Report { classes: 1, ..full() }.render().contains("of the 1 class"));
    }

    #[test]
    fn elements_are_balanced() {
        let page = full().render();
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.ends_with('/') || ["!doctype", "!--", "meta", "img", "br"].contains(&name) {
                continue;
            }
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn empty_parts_are_left_out() {
        let page = Report { title: "run".to_owned(), ..Report::default() }.render();
        assert!(page.contains("<h1>run</h1>"));
        assert!(!page.contains("<section") && !page.contains("<svg"));
    }
}
