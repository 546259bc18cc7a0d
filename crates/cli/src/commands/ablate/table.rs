//! The results of a study, as a table or in JSON.

use anyhow::Result;
use serde_json::{Value, json};
use simclr_eval::study::{Chance, Column, Measure, Order, Row, Study, Variant, columns, main_measure};

use crate::terminal;

/// Prints the results of a study with `seeds` seeds, evaluated on `test_images` images, as a JSON object.
pub fn tell_json(study: &Study, seeds: u64, test_images: usize, rows: &[Row]) -> Result<()> {
    let told = Measure::ALL.into_iter().filter(|&measure| rows.iter().any(|row| row.mean(measure).is_some()));
    let told: Vec<Measure> = told.collect();
    let row = |row: &Row| {
        let mut object = described(row.variant);
        told.iter().for_each(|&measure| object[measure.word()] = json!(row.mean(measure)));
        object["failures"] = json!(row.failures);
        object
    };
    let order: serde_json::Map<String, Value> = (told.iter())
        .filter_map(|&measure| Some((measure.word().to_owned(), json!(Order::of(rows, measure)?))))
        .collect();
    let chance: serde_json::Map<String, Value> = (told.iter())
        .filter_map(|&measure| {
            let difference = Chance::of(rows, measure, test_images)?.difference;
            Some((measure.word().to_owned(), json!(difference)))
        })
        .collect();
    let object = json!({
        "study": study.title, "source": study.source, "set": study.set, "seeds": seeds,
        "test_images": test_images, "within_chance": chance,
        "variants": rows.iter().map(row).collect::<Vec<Value>>(), "left_out": study.left_out, "order": order,
    });
    terminal::print_json(&object)
}

/// Prints the results of a study, evaluated on `test_images` images, as a table.
pub fn tell(study: &Study, test_images: usize, rows: &[Row]) -> Result<()> {
    lines(rows).iter().try_for_each(|line| terminal::print(line))?;
    if let Some(measure) = main_measure(rows) {
        if let Some(chance) = Chance::of(rows, measure, test_images) {
            terminal::print(&chance.to_string())?;
        }
        if let Some(order) = Order::of(rows, measure) {
            terminal::print(&format!("{}: {order}", measure.title()))?;
        }
    }
    if let Some(source) = study.source.as_ref().filter(|_| rows.iter().any(|row| row.variant.paper.is_some()))
    {
        terminal::print(&terminal::inert(&format!("paper: {source}")))?;
    }
    for row in rows {
        for failure in &row.failures {
            terminal::print(&terminal::inert(&format!("{}, {failure}", row.variant.name)))?;
        }
    }
    Ok(())
}

/// The table: a line of titles, and one for each variant. Each column is as wide as what is in it.
fn lines(rows: &[Row]) -> Vec<String> {
    let columns = columns(rows);
    let titles = columns.iter().map(|column| column.title().to_owned());
    let mut table: Vec<Vec<String>> = vec![["variant".to_owned()].into_iter().chain(titles).collect()];
    for row in rows {
        let cell = |&column: &Column| {
            let found = match column {
                Column::Measured(measure) => row.mean(measure).map(|mean| mean.to_string()),
                Column::Published(measure) => {
                    row.variant.published(measure).map(|figure| terminal::percent(figure / 100.0))
                }
            };
            found.unwrap_or("-".to_owned())
        };
        let name = terminal::inert(&row.variant.name);
        table.push([name].into_iter().chain(columns.iter().map(cell)).collect());
    }
    let width = |at: usize| table.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let numbers = cells.iter().zip(&widths).skip(1).map(|(cell, &width)| format!("  {cell:>width$}"));
        format!("{:<width$}{}", cells[0], numbers.collect::<String>(), width = widths[0])
    };
    table.iter().map(line).collect()
}

/// A variant in JSON. Its published figures are fractions, like all others there.
pub fn described(variant: &Variant) -> Value {
    let fraction = |figure: Option<f64>| figure.map(|figure| figure / 100.0);
    json!({
        "name": variant.name, "set": variant.set, "paper": fraction(variant.paper),
        "paper_contrastive": fraction(variant.paper_contrastive),
    })
}

#[cfg(test)]
mod tests {
    use simclr_eval::study::{Trial, rows};

    use super::*;

    #[test]
    fn published_figures_do_not_widen_the_table_beyond_a_terminal() {
        let study = Study::find("temperature").unwrap();
        let trial = |variant, seed, score| Trial {
            variant,
            seed,
            scores: [Some(score), Some(score / 2.0), None, Some(0.9)],
            failure: None,
        };
        let trials = [trial(0, 0, 0.4), trial(0, 1, 0.6), trial(1, 0, 0.5)];
        let lines = lines(&rows(&study, &trials));
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(0), "variant kNN linear paper contrastive paper");
        assert_eq!(words(1), "tau 0.05 50.0 ± 14.1% 25.0 ± 7.1% 59.7% 90.0 ± 0.0% 90.5%");
        assert_eq!(words(2), "tau 0.1 50.0% 25.0% 64.4% 90.0% 87.8%");
        assert_eq!(words(6), "not normalised, tau 100 - - 57.0% - 92.1%");
    }
}
