//! Layer-wise adaptive rate scaling (You et al., arXiv:1708.03888), as SimCLR uses it.

/// What multiplies a layer's rate: coefficient |w| / |g + decay w|, and 1 where either norm is 0.
///
/// `decayed` is the norm of the SUM g + decay w. Ports that add the norms |g| + decay |w| instead underestimate the
/// ratio wherever gradient and weights oppose each other. Without decay it still adapts.
pub fn trust_ratio(weight: f64, decayed: f64, coefficient: f64) -> f64 {
    if weight > 0.0 && decayed > 0.0 { coefficient * weight / decayed } else { 1.0 }
}
