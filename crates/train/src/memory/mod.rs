//! The available memory, and the memory that a run takes.

mod choose;
mod groups;
mod images;
mod needs;
mod state;
mod system;

pub use choose::{Choice, choose, choose_for};
pub use images::Images;
pub(crate) use needs::fits_in;
pub use needs::{Needs, Pass, step_use};
pub use state::check_state;
pub(crate) use system::allowed;
pub use system::{available, available_bytes, peak, total};
