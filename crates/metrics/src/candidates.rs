//! The rows that may be among the nearest to a query.

use std::cmp::Ordering;

/// Similarities compared at once while looking for one above the bar.
const SCAN: usize = 32;

/// A base row that may be among the nearest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub similarity: f32,
    pub index: u32,
}

impl Candidate {
    /// Most similar first, then by index.
    pub fn order(&self, other: &Candidate) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.index.cmp(&other.index))
    }
}

/// The best candidates offered so far, and some that were among the best when they were offered.
#[derive(Debug, Clone)]
pub(crate) struct Candidates {
    k: usize,
    held: Vec<Candidate>,
    /// A newcomer no more similar than this cannot be among the best `k`: offers come in the order of their
    /// index, so that of two equals the earlier one stays.
    bar: f32,
}

impl Candidates {
    pub fn new(k: usize) -> Self {
        Candidates { k, held: Vec::new(), bar: f32::NEG_INFINITY }
    }

    /// Offers base rows `first`, `first + 1`, ... with these similarities. Rows are offered in their order.
    pub fn offer_all(&mut self, first: u32, similarities: &[f32]) {
        for (block, values) in similarities.chunks(SCAN).enumerate() {
            // No early exit, so that the comparison is vectorised.
            if !values.iter().fold(false, |any, &s| any | (s > self.bar)) {
                continue;
            }
            let start = first + (block * SCAN) as u32;
            for (offset, &similarity) in values.iter().enumerate() {
                if similarity > self.bar {
                    self.held.push(Candidate { similarity, index: start + offset as u32 });
                }
            }
            // With k newcomers between two selections, selecting costs a constant time per newcomer.
            if self.held.len() / 2 >= self.k {
                self.select();
            }
        }
    }

    fn select(&mut self) {
        if self.held.len() > self.k {
            self.held.select_nth_unstable_by(self.k - 1, Candidate::order);
            self.held.truncate(self.k);
            self.bar = self.held[self.k - 1].similarity;
        }
    }

    /// The best `k`, or all that were offered, nearest first.
    pub fn best(mut self) -> Vec<Candidate> {
        self.select();
        self.held.sort_unstable_by(Candidate::order);
        self.held
    }
}
