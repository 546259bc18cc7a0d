//! The frame of a page, and escaping.

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
