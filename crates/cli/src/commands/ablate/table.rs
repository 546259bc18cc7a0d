//! The results of a study, as a table or in JSON.

use anyhow::Result;
use serde_json::{Value, json};
use simclr_eval::study::{Chance, Judge, Order, Row, Study, Variant, main_judge};

use crate::terminal;

/// Prints the results of a study with `seeds` seeds, evaluated on `test_images` images.
pub fn tell(study: &Study, seeds: u64, test_images: usize, rows: &[Row], as_json: bool) -> Result<()> {
    let told = Judge::ALL.into_iter().filter(|&judge| rows.iter().any(|row| row.mean(judge).is_some()));
    let told: Vec<Judge> = told.collect();
    let order = |judge| Order::of(rows, judge);
    if as_json {
        let row = |row: &Row| {
            let mut object = described(row.variant);
            told.iter().for_each(|&judge| object[judge.word()] = json!(row.mean(judge)));
            object["failures"] = json!(row.failures);
            object
        };
        let order: serde_json::Map<String, Value> =
            told.iter().filter_map(|&judge| Some((judge.word().to_owned(), json!(order(judge)?)))).collect();
        let chance: serde_json::Map<String, Value> = (told.iter())
            .filter_map(|&judge| {
                let difference = Chance::of(rows, judge, test_images)?.difference;
                Some((judge.word().to_owned(), json!(difference)))
            })
            .collect();
        let object = json!({
            "study": study.title, "source": study.source, "seeds": seeds, "test_images": test_images,
            "within_chance": chance, "variants": rows.iter().map(row).collect::<Vec<Value>>(), "order": order,
        });
        terminal::print(&object.to_string())?;
        return Ok(());
    }
    let width = rows.iter().map(|row| row.variant.name.chars().count()).max().unwrap_or(0).max(8);
    let heads: Vec<String> = told.iter().map(|judge| format!("{:>14}", judge.title())).collect();
    terminal::print(&format!("{:<width$} {} {:>8}", "variant", heads.join(" "), "paper"))?;
    for row in rows {
        let cells: Vec<String> = told
            .iter()
            .map(|&judge| row.mean(judge).map_or(format!("{:>14}", "-"), |mean| format!("{mean:>14}")))
            .collect();
        let paper = row.variant.paper.map_or("-".to_owned(), |paper| terminal::percent(paper / 100.0));
        terminal::print(&format!(
            "{:<width$} {} {paper:>8}",
            terminal::inert(&row.variant.name),
            cells.join(" ")
        ))?;
    }
    if let Some(judge) = main_judge(rows) {
        if let Some(chance) = Chance::of(rows, judge, test_images) {
            terminal::print(&chance.to_string())?;
        }
        if let Some(order) = order(judge) {
            terminal::print(&format!("{}: {order}", judge.title()))?;
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

/// A variant in JSON. Its published figure is a fraction, like all others there.
pub fn described(variant: &Variant) -> Value {
    json!({
        "name": variant.name, "set": variant.set, "paper": variant.paper.map(|paper| paper / 100.0),
    })
}
