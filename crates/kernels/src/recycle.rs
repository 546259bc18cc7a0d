//! Reuse of vectors' memory.

/// Empties `vec` and returns its memory for values of another type, usually the same type with another lifetime.
///
/// If the sizes of the types agree, collecting in place keeps the allocation; otherwise the vector may be a new one.
pub fn emptied<A, B>(mut vec: Vec<A>) -> Vec<B> {
    vec.clear();
    vec.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_kept() {
        let text = String::from("borrowed");
        let mut borrowed: Vec<&str> = Vec::with_capacity(100);
        borrowed.push(&text);
        let address = borrowed.as_ptr().addr();
        let owned: Vec<&'static str> = emptied(borrowed);
        assert_eq!((owned.as_ptr().addr(), owned.len(), owned.capacity()), (address, 0, 100));
    }
}
