//! Vectors whose memory is used again.

/// The memory of `vec`, empty, for values of another type of the same size: mostly the same type with another lifetime.
///
/// Where sizes agree, collecting in place keeps the allocation; otherwise a new, empty vector is as good.
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
