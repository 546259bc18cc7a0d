//! Numbers as messages have them.

use std::fmt;

/// A number with its thousands apart: "12,345".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: "1 image", "12,345 images".
pub fn counted(number: usize, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
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

/// Bytes, displayed as "1.25 GB", or with as many decimals as the precision asks for: `{:.1}` is "1.2 GB".
pub struct Gigabytes(pub u64);

impl fmt::Display for Gigabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        write!(f, "{:.decimals$} GB", self.0 as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart_and_one_is_one() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "image"), counted(1000, "image")), ("1 image".into(), "1,000 images".into()));
    }

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

    #[test]
    fn bytes_have_the_decimals_asked_for() {
        let bytes = Gigabytes(1_250_000_000);
        assert_eq!(
            [format!("{bytes}"), format!("{bytes:.1}"), format!("{bytes:.0}")],
            ["1.25 GB", "1.2 GB", "1 GB"]
        );
    }
}
