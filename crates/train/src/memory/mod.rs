//! How much memory there is, and how much a run takes.

mod choose;
mod needs;
mod system;

pub use choose::{Choice, choose};
pub use needs::{Needs, cache_bytes, image_bytes, step_use};
pub use system::{available, available_bytes, total};
