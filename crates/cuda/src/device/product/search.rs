//! The choice among the algorithms that cuBLASLt proposes for a product.

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;

use super::plan::{Choice, Plan, Problem};
use super::{Device, Key, NAME, Operands, Products};
use crate::device::timing;
use crate::{CudaError, Memory, Result};

impl Products {
    /// The plan for a key: known, remembered on disk, or found by timing on the operands. Timing overwrites `out`,
    /// unless the product is to be added to it.
    pub(super) fn plan(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<&Plan> {
        if !self.plans.contains_key(key) {
            let problem = Problem::new(self.handle, key, operands)?;
            let choice = self.choice(device, key, &problem, operands)?;
            self.plans.insert(*key, Plan { problem, choice });
        }
        Ok(&self.plans[key])
    }

    fn choice(&self, device: &Device, key: &Key, problem: &Problem, operands: Operands) -> Result<Choice> {
        let name = format!("{key:?}");
        let known = || problem.checked(&algorithm(&self.remembered.get(&name)?)?);
        if let Some(choice) = known() {
            return Ok(choice);
        }
        device.refuse_in_capture("choosing an algorithm")?;
        self.remembered.forget(&name);
        let proposals = problem.proposals()?;
        let missing = || CudaError::Call {
            what: NAME,
            reason: format!("{} has no algorithm for {name}", self.remembered.machine()),
        };
        // The values that the product is to be added to must survive the search.
        let [rows, columns, _] = key.sizes;
        let aside = key.adds.then(|| device.pool().take(rows * columns * key.output.size())).transpose();
        let aside = match aside {
            Ok(aside) => aside,
            // Without memory to time them, take the library's first proposal, for this process only: it is not
            // remembered.
            Err(CudaError::OutOfMemory { .. }) => return proposals.first().copied().ok_or_else(missing),
            Err(error) => return Err(error),
        };
        let out = aside.as_ref().map_or(operands.out, Memory::address);
        let operands = Operands { out, ..operands };
        let search = || fastest(device, problem, &proposals, operands)?.ok_or_else(missing);
        let Found { choice, of_all } = device.counted_search(search)?;
        // What is free now need not be what is free the next time.
        if of_all {
            self.remembered.put(&name, &bytes(&choice.algorithm));
        }
        // Another process may have stored a choice meanwhile: use it, as all will on the next start.
        Ok(known().unwrap_or(choice))
    }
}

/// The result of a search.
struct Found {
    choice: Choice,
    /// Whether there was memory to try all proposals.
    of_all: bool,
}

/// The fastest of the proposals that work, if there are any.
///
/// # Errors
/// The first error if no proposal works, or if one leaves the GPU unusable.
fn fastest(
    device: &Device,
    problem: &Problem,
    proposals: &[Choice],
    operands: Operands,
) -> Result<Option<Found>> {
    let (mut best, mut refused, mut of_all) = ((f64::INFINITY, None), None, true);
    for choice in proposals {
        // SAFETY: the operands match the key, except that the product may go to memory of its own of the same length.
        let mut run = || unsafe { problem.run(device, choice, operands) };
        match timing::seconds(device, best.0, &mut run) {
            Ok(seconds) if seconds < best.0 => best = (seconds, Some(*choice)),
            Ok(_) => {}
            Err(error) => {
                of_all &= !matches!(error, CudaError::OutOfMemory { .. });
                refused = Some(timing::survived(device, refused, error)?);
            }
        }
    }
    match (best.1, refused) {
        (None, Some(error)) => Err(error),
        (choice, _) => Ok(choice.map(|choice| Found { choice, of_all })),
    }
}

/// Serialises an algorithm: the library allows copies of it, and accepts them in the same version.
fn bytes(algorithm: &cublasLtMatmulAlgo_t) -> Vec<u8> {
    algorithm.data.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn algorithm(bytes: &[u8]) -> Option<cublasLtMatmulAlgo_t> {
    let (words, rest) = bytes.as_chunks::<8>();
    let data = words.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>().try_into().ok()?;
    rest.is_empty().then_some(cublasLtMatmulAlgo_t { data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_is_read_as_it_was_written() {
        let some = cublasLtMatmulAlgo_t { data: [1, u64::MAX, 3, 0, 5, 6, 7, 1 << 40] };
        let stored = bytes(&some);
        assert_eq!(algorithm(&stored), Some(some));
        for len in [0, 8, 63] {
            assert_eq!(algorithm(&stored[..len]), None);
        }
        assert_eq!(algorithm(&[&stored[..], &[0]].concat()), None);
        assert_eq!(algorithm(&[&stored[..], &[0; 8]].concat()), None);
    }
}
