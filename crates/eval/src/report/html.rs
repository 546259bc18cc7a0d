//! The frame of a page; escaping and numbers.

use simclr_data::text::grouped;

/// A page around `parts`, which are HTML; title and subtitle are text.
pub(super) fn page(title: &str, subtitle: &str, parts: &str) -> String {
    let subtitle = match subtitle {
        "" => String::new(),
        text => format!("<p class=\"subtitle\">{}</p>\n", escape(text)),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{title}</h1>\n{subtitle}</header>\n{parts}</main>\n</body>\n</html>\n",
        title = escape(title),
        style = include_str!("style.css"),
    )
}

/// Escapes `text` for use between tags and in quoted attributes.
///
/// Control characters (terminal escapes) and those that change the direction of text become U+FFFD, so that a name
/// cannot disguise itself.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A fraction as a percentage with one decimal: "56.4%".
pub fn percent(fraction: f64) -> String {
    format!("{:.1}%", 100.0 * fraction)
}

/// A number in about three digits, its thousands apart.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e6).contains(&size) {
        let text = format!("{value:.1e}");
        text.replace(".0e", "e")
    } else {
        // Digits after the point so that three remain, never a tail of zeros.
        let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            return text.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        match text.trim_start_matches('-').parse() {
            Ok(whole) => format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(whole)),
            Err(_) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (5.0, "5"),
            (5.126, "5.13"),
            (1234.5, "1,234"),
            (-1e5, "-100,000"),
            (0.0012, "0.0012"),
            (-3.75, "-3.75"),
            (1e-7, "1e-7"),
            (2.5e7, "2.5e7"),
            (100.0, "100"),
            (99.96, "100"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
        assert_eq!(percent(0.5637), "56.4%");
    }
}
