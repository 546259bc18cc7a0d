//! "Did you mean": the name nearest to a misspelt one.

/// Returns the name most similar to `word`, if any is similar enough to suggest.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&word, name), name))
        .filter(|&(score, _)| score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn suggests_a_misspelling_and_nothing_for_noise() {
        let names = ["cosine", "constant"];
        assert_eq!(nearest("cosin", names), Some("cosine"));
        assert_eq!(nearest("CONSTANT", names), Some("constant"));
        assert_eq!(nearest("zzzz", names), None);
        assert_eq!(nearest("", names), None);
    }
}
