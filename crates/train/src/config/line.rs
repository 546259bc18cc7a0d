//! The line of a key in a TOML text.

use toml::de::{DeTable, DeValue};

/// Appends to `origin` the line in `text` of the key at `path`, such as `optim.rate` or `view.a[2].prob`; if the key
/// is not there, the line of the innermost table or list that would hold it.
pub fn with_line(origin: &str, text: &str, path: &str) -> String {
    match line_of(text, path) {
        Some(line) => format!("{origin}, line {line}"),
        None => origin.to_owned(),
    }
}

/// The path of a key in a message, where the items of a list are counted from 1, as [`with_line`] takes it.
pub(crate) fn counted_from_0(path: &str) -> String {
    let parts = path.split_inclusive('[').map(|part| match part.split_once(']') {
        Some((number, rest)) => match number.parse::<usize>() {
            Ok(number) => format!("{}]{rest}", number.saturating_sub(1)),
            Err(_) => part.to_owned(),
        },
        None => part.to_owned(),
    });
    parts.collect()
}

fn line_of(text: &str, path: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut start) = (document.get_ref(), None);
    'path: for step in path.split('.') {
        let (name, numbers) = step.split_once('[').unwrap_or((step, ""));
        let Some((key, mut value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        start = Some(key.span().start);
        for number in numbers.split(['[', ']']).filter_map(|number| number.parse::<usize>().ok()) {
            let item = value.get_ref().as_array().and_then(|items| items.get(number));
            let Some(item) = item else { break 'path };
            (value, start) = (item, Some(item.span().start));
        }
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    Some(text.get(..start?)?.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tables_and_items_have_lines() {
        let text =
            "# a file\na = 1\n[b]\nc = [\n  1,\n  2,\n]\n\n[[d]]\ne = 1\n[[d]]\n# more\n\"e f\" = {g = 2}\n";
        for (path, line) in [
            ("a", Some(2)),
            ("b", Some(3)),
            ("b.c", Some(4)),
            ("b.c[1]", Some(6)),
            ("b.c[7]", Some(4)),
            ("b.other", Some(3)),
            ("d[0].e", Some(10)),
            ("d[1]", Some(11)),
            ("d[1].missing", Some(11)),
            ("d[1].e f.g", Some(13)),
            ("other", None),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        assert_eq!(line_of("a = ", "a"), None);
        assert_eq!(counted_from_0("view.a[1].prob"), "view.a[0].prob");
        assert_eq!(counted_from_0("a[12][3].b"), "a[11][2].b");
        assert_eq!(counted_from_0("optim.rate"), "optim.rate");
        assert_eq!((with_line("f", text, "a"), with_line("f", text, "x")), ("f, line 2".into(), "f".into()));
    }
}
