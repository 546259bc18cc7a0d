//! A study as an HTML page.

use std::fmt::Write;

use simclr_words::text::percent;

use super::html::{escape, page};
use super::sections::{self, bar};
use crate::study::{Chance, Column, Measure, Order, Row, Study, columns, main_measure};

/// The page of what came of a study so far. `recipe` is what all variants have in common, as TOML; `seeds` how
/// often each was trained; `test_images` how many judged it.
pub fn study_page(study: &Study, rows: &[Row], seeds: usize, test_images: usize, recipe: &str) -> String {
    let columns = columns(rows);
    let has_paper = study.variants.iter().any(|variant| variant.paper.is_some());
    let mut out = String::from("<section>\n<h2>Variants</h2>\n");
    // The bars are of the figure that the paper's are of, or of the first that there is.
    let main = main_measure(rows);
    let published =
        |row: &Row| row.variant.published(main.map_or(Measure::Linear, Measure::published_counterpart));
    if let Some(main) = main {
        let paper = if rows.iter().any(|row| published(row).is_some()) {
            " <i class=\"c1\"></i> the paper’s"
        } else {
            ""
        };
        let _ = writeln!(out, "<p class=\"key\"><i class=\"c0\"></i> {}{paper}</p>", main.title());
    }
    out.push_str("<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">variant</th><th scope=\"col\" class=\"bars\"></th>");
    for column in &columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", column.title());
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let own = main.and_then(|main| row.mean(main)).map(|mean| mean.mean);
        let paper = published(row).map(|paper| paper / 100.0);
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}<br><small>{}</small></th><td class=\"bars\">{}{}</td>",
            escape(&row.variant.name),
            changes(row),
            bar(0, own),
            bar(1, paper),
        );
        for &column in &columns {
            let class = if main.map(Column::Measured) == Some(column) { " class=\"first\"" } else { "" };
            let cell = match column {
                Column::Measured(measure) => {
                    row.mean(measure).map(|mean| mean.to_string().replace(' ', "\u{202f}"))
                }
                Column::Published(measure) => {
                    row.variant.published(measure).map(|figure| percent(figure / 100.0))
                }
            };
            let _ = write!(out, "<td{class}>{}</td>", cell.unwrap_or("–".to_owned()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
    if let Some(chance) = main.and_then(|main| Chance::of(rows, main, test_images)) {
        let _ = writeln!(out, "<p>{chance}.</p>");
    }
    if let Some((measure, order)) = main.and_then(|main| Some((main, Order::of(rows, main)?))) {
        let _ = writeln!(out, "<p>{}: {order}.</p>", measure.title());
    }
    if let Some(source) = study.source.as_ref().filter(|_| has_paper) {
        let _ = writeln!(
            out,
            "<p>The paper’s figures are of other images and another network: {}.</p>",
            escape(source)
        );
    }
    if !study.left_out.is_empty() {
        let names: Vec<String> = study.left_out.iter().map(|name| escape(name)).collect();
        let _ = writeln!(
            out,
            "<p>Left out, since their batches are larger than the number of images to train on: {}.</p>",
            names.join(", ")
        );
    }
    for row in rows {
        for failure in &row.failures {
            let _ = writeln!(out, "<p>{}, {}</p>", escape(&row.variant.name), escape(failure));
        }
    }
    out.push_str("</section>\n");
    out += &sections::config("What all have in common", recipe);
    let subtitle = match seeds {
        1 => "One seed: small differences mean nothing.".to_owned(),
        seeds => format!("{seeds} seeds each: mean and standard deviation."),
    };
    page(&study.title, &subtitle, &out)
}

/// HTML of what is different in a variant, a setting a line, which a narrow column may break after the table and after
/// the key.
fn changes(row: &Row) -> String {
    let setting = |setting: &String| match escape(setting).split_once('=') {
        Some((key, value)) => format!("{}=<wbr>{value}", key.replace('.', ".<wbr>")),
        None => escape(setting),
    };
    match row.variant.set.is_empty() {
        true => "the recipe as it is".to_owned(),
        false => row.variant.set.iter().map(setting).collect::<Vec<_>>().join("<br>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Trial, rows};

    #[test]
    fn a_page_tells_what_was_measured_and_texts_stay_texts() {
        let mut study = Study::find("head").unwrap();
        study.variants[0].name = "<script>".to_owned();
        study.left_out = vec!["8192".to_owned(), "<b>".to_owned()];
        let trial = |variant, score| Trial {
            variant,
            seed: 0,
            scores: [Some(score), Some(score / 2.0), None, None],
            failure: None,
        };
        let failed =
            Trial { scores: [None; 4], failure: Some("the loss is <nan>".to_owned()), ..trial(2, 0.0) };
        let page =
            study_page(&study, &rows(&study, &[trial(0, 0.5), trial(1, 0.6), failed]), 1, 24, "[train]");
        for words in [
            "50.0%",
            "30.0%",
            "60.6%",
            "head.<wbr>kind=<wbr>linear",
            "&lt;script&gt;",
            "&lt;nan&gt;",
            "number of images to train on: 8192, &lt;b&gt;.",
            "24 test images: differences below about ",
            "linear: 1 of 1 pair ranks as in the paper (chance: 0.5).",
        ] {
            assert!(page.contains(words), "no {words}");
        }
        for words in ["<script", "linear on z", "contrastive"] {
            assert!(!page.contains(words), "{words}");
        }
    }
}
