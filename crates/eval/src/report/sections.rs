//! Tables, bars, pictures and lists of the page.

use super::html::escape;
use super::{AccuracyRow, ClassAccuracy, Figure, NeighbourRow, PerClass, Picture, TopAccuracy, Transfer};
use std::collections::HashSet;
use std::fmt::Write;

use simclr_data::Skipped;
use simclr_words::text::{counted, grouped, percent};

use crate::protocols::{Probe, ProbeRow};

/// The most classes shown one by one; of more, only the best and the worst are.
const CLASSES: usize = 40;
/// Skipped files listed by name.
const SKIPPED: usize = 500;

pub(super) fn figures(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut out = String::from("<dl class=\"figures\">\n");
    for figure in figures {
        let note = |note: &String| format!("<dd class=\"note\">{}</dd>", escape(note));
        let notes: String = figure.notes.iter().map(note).collect();
        let _ = writeln!(
            out,
            "<div><dt>{}</dt><dd>{}</dd>{notes}</div>",
            escape(&figure.label),
            escape(&figure.value)
        );
    }
    out + "</dl>\n"
}

pub(super) fn accuracy(rows: &[AccuracyRow], encoder: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let encoder = escape(encoder);
    let mut out = format!(
        "<section>\n<h2>Accuracy</h2>\n<p class=\"key\"><i class=\"c0\"></i> {encoder} <i class=\"c1\"></i> the same network without pretraining</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">protocol</th><th scope=\"col\" class=\"bars\"></th>\
         <th scope=\"col\">{encoder}<br>top-1</th><th scope=\"col\">random<br>top-1</th><th scope=\"col\">gain,<br>points</th>\
         <th scope=\"col\">{encoder}<br>top-5</th><th scope=\"col\">random<br>top-5</th></tr></thead>\n<tbody>\n",
    );
    for row in rows {
        let top1 = |accuracy: Option<TopAccuracy>| accuracy.map(|accuracy| accuracy.top1);
        let top5 = |accuracy: Option<TopAccuracy>| accuracy.and_then(|accuracy| accuracy.top5);
        let gain = gain(top1(row.simclr), top1(row.random));
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}{}</th><td class=\"bars\">{}{}</td><td class=\"first\">{}</td><td>{}</td><td>{gain}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.protocol),
            [&row.settings, &row.data].map(|text| below(text)).concat(),
            bar(0, top1(row.simclr)),
            bar(1, top1(row.random)),
            cell(top1(row.simclr)),
            cell(top1(row.random)),
            cell(top5(row.simclr)),
            cell(top5(row.random)),
        );
    }
    out + "</tbody>\n</table></div>\n</section>\n"
}

/// A line below the name of a row.
fn below(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<br><small>{}</small>", escape(text)) }
}

pub(super) fn transfer(Transfer { rows, papers_network }: &Transfer, encoder: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let encoder = escape(encoder);
    let mut out = format!(
        "<section>\n<h2>Other data sets</h2>\n<p class=\"key\"><i class=\"c0\"></i> {encoder} <i class=\"c1\"></i> the same network without pretraining</p>\n",
    );
    if rows.iter().any(|row| !row.paper.is_empty()) {
        let _ = writeln!(
            out,
            "<p>The paper’s figures (arXiv:2002.05709, table 8) are of its {}, another network, by SimCLR and supervised, and beside \
             fine-tuning also from scratch: for orientation.</p>",
            escape(papers_network)
        );
    }
    let _ = write!(
        out,
        "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">data set</th><th scope=\"col\">protocol</th><th scope=\"col\">figure</th>\
         <th scope=\"col\" class=\"bars\"></th><th scope=\"col\">{encoder}</th><th scope=\"col\">random</th><th scope=\"col\">gain,<br>points</th>\
         <th scope=\"col\">paper’s<br>networks</th></tr></thead>\n<tbody>\n",
    );
    for row in rows {
        let step =
            row.step.map_or(String::new(), |step| format!(" <small>at step {}</small>", grouped(step)));
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}{step}</th><td class=\"words\">{}</td><td class=\"words\">{}</td><td class=\"bars\">{}{}</td><td class=\"first\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.set),
            escape(&row.protocol),
            escape(&row.metric),
            bar(0, row.simclr),
            bar(1, row.random),
            cell(row.simclr),
            cell(row.random),
            gain(row.simclr, row.random),
            row.published().unwrap_or("–".to_owned()),
        );
    }
    out + "</tbody>\n</table></div>\n</section>\n"
}

pub(super) fn probe(probe: &Probe) -> String {
    let Probe { step, rows, .. } = probe;
    let mut out = format!(
        "<section>\n<h2>What h and z know of what was done to an image</h2>\n\
         <p class=\"key\"><i class=\"c0\"></i> features h (encoder) <i class=\"c1\"></i> projections z (head)</p>\n\
         <p>Logistic regression on each at step {}, judged by {}. The paper’s figures are of other networks, with an \
         MLP as the classifier (arXiv:2002.05709, table 3).</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">what is told apart</th><th scope=\"col\" class=\"bars\"></th>\
         <th scope=\"col\">chance</th><th scope=\"col\">h</th><th scope=\"col\">z</th><th scope=\"col\">paper’s<br>h</th>\
         <th scope=\"col\">paper’s<br>z</th></tr></thead>\n<tbody>\n",
        grouped(*step),
        escape(&probe.judged_by()),
    );
    for ProbeRow { transformation, chance, h, z, .. } in rows {
        let paper = transformation.paper();
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"bars\">{}{}</td><td>{}</td><td class=\"first\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(transformation.title()),
            bar(0, Some(*h)),
            bar(1, *z),
            percent(*chance),
            percent(*h),
            cell(*z),
            percent(paper[0]),
            percent(paper[1]),
        );
    }
    out + "</tbody>\n</table></div>\n</section>\n"
}

/// The gain by pretraining, in percentage points: the difference of the figures as they are shown.
fn gain(simclr: Option<f64>, random: Option<f64>) -> String {
    let shown = |score: f64| format!("{:.1}", 100.0 * score).parse().unwrap_or(f64::NAN);
    match (simclr, random) {
        (Some(simclr), Some(random)) => format!("{:+.1}", shown(simclr) - shown(random)),
        _ => "–".to_owned(),
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), percent)
}

/// A bar whose length is the fraction.
pub(super) fn bar(colour: usize, fraction: Option<f64>) -> String {
    let Some(fraction) = fraction else { return String::new() };
    format!("<span class=\"bar c{colour}\" style=\"width:{:.1}%\"></span>", 100.0 * fraction.clamp(0.0, 1.0))
}

pub(super) fn per_class(protocols: &[PerClass], encoder: &str) -> String {
    let protocols: Vec<&PerClass> = protocols.iter().filter(|of| !of.classes.is_empty()).collect();
    if protocols.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>Accuracy by class</h2>\n");
    let has_random = protocols.iter().any(|of| of.classes.iter().any(|class| class.random.is_some()));
    if has_random {
        let _ = writeln!(
            out,
            "<p class=\"key\"><i class=\"c0\"></i> {} <i class=\"mark\"></i> the same network without pretraining; behind \
             each figure the number of test images</p>",
            escape(encoder)
        );
    }
    protocols.into_iter().for_each(|of| classes_of(of, &mut out));
    out + "</section>\n"
}

/// The classes by accuracy under one protocol, the best first.
fn classes_of(PerClass { protocol, data, warning, classes }: &PerClass, out: &mut String) {
    let mut sorted: Vec<&ClassAccuracy> = classes.iter().collect();
    sorted.sort_by(|a, b| b.simclr.total_cmp(&a.simclr));
    let _ = writeln!(out, "<h3>{}</h3>\n<p>{}.</p>", escape(protocol), escape(data));
    if !warning.is_empty() {
        let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(warning));
    }
    if sorted.len() > CLASSES {
        let _ =
            writeln!(out, "<p>The {0} best and the {0} worst of {1} classes.</p>", CLASSES / 2, sorted.len());
        sorted.drain(CLASSES / 2..sorted.len() - CLASSES / 2);
    }
    out.push_str("<ul class=\"classes\">\n");
    for class in sorted {
        let random = match class.random {
            Some(random) => format!(
                "<i class=\"mark\" style=\"left:{:.1}%\" title=\"without pretraining: {}\"></i>",
                100.0 * random.clamp(0.0, 1.0),
                percent(random)
            ),
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "<li><span class=\"class\">{}</span><span class=\"track\">{}{random}</span><span class=\"number\">{}</span>\
             <span class=\"images\" title=\"test images\">of {}</span></li>",
            escape(&class.class),
            bar(0, Some(class.simclr)),
            percent(class.simclr),
            grouped(class.images),
        );
    }
    out.push_str("</ul>\n");
}

pub(super) fn neighbours(rows: &[NeighbourRow], classes: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>Nearest neighbours</h2>\n");
    let labelled = rows.iter().any(|row| row.query.class.is_some());
    out.push_str(
        "<p>Each row: an image, then the images that the encoder finds most similar, nearest first.",
    );
    let shown: HashSet<&str> = rows.iter().filter_map(|row| row.query.class.as_deref()).collect();
    if shown.len() < classes {
        let _ = write!(out, " These are of {} of the {classes} classes.", shown.len());
    }
    out.push_str(if labelled {
        " <span class=\"same\">✓ same class</span> <span class=\"other\">✗ another class</span></p>\n"
    } else {
        "</p>\n"
    });
    out.push_str("<div class=\"neighbours\">\n");
    for row in rows {
        let _ =
            write!(out, "<div class=\"row\">{}<div class=\"near\">", picture(&row.query, "query", "", ""));
        for (neighbour, similarity) in &row.neighbours {
            let (class, sign) = match (&row.query.class, &neighbour.class) {
                (Some(query), Some(other)) if query == other => ("same", "✓ "),
                (Some(_), Some(_)) => ("other", "✗ "),
                _ => ("", ""),
            };
            out.push_str(&picture(neighbour, class, sign, &format!(", cosine similarity {similarity:.3}")));
        }
        out.push_str("</div></div>\n");
    }
    out + "</div>\n</section>\n"
}

/// A picture with its class under it; on hover its name, and `more`.
fn picture(picture: &Picture, class: &str, sign: &str, more: &str) -> String {
    let name = escape(picture.class.as_deref().unwrap_or_default());
    // Small pictures are enlarged with their pixels kept sharp.
    let crisp = if picture.width <= 64 { " crisp" } else { "" };
    let caption =
        if name.is_empty() { String::new() } else { format!("<figcaption>{sign}{name}</figcaption>") };
    format!(
        "<figure class=\"picture {class}{crisp}\" title=\"{hover}{more}\"><img alt=\"\" src=\"data:image/png;base64,{}\">{caption}</figure>",
        picture.png,
        hover = escape(&picture.name),
    )
}

/// TOML below `summary`.
pub(super) fn config(summary: &str, config: &str) -> String {
    if config.trim().is_empty() {
        return String::new();
    }
    let text = escape(config.trim_end());
    format!("<section>\n<details><summary>{summary}</summary>\n<pre>{text}</pre>\n</details>\n</section>\n")
}

pub(super) fn skipped(files: &[Skipped]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<section>\n<details><summary>{} skipped</summary>\n<ul class=\"skipped\">\n",
        counted(files.len(), "file")
    );
    for file in files.iter().take(SKIPPED) {
        let _ = writeln!(out, "<li><code>{}</code> {}</li>", escape(&file.name), escape(&file.reason));
    }
    if files.len() > SKIPPED {
        let _ = writeln!(out, "<li>and {} more</li>", grouped((files.len() - SKIPPED) as u64));
    }
    out + "</ul>\n</details>\n</section>\n"
}
