//! Every kernel, run on the CPU in place of a GPU, against the portable forms that specify it.
//!
//! What a GPU's compiler gets is translated by the system's C++ compiler: see `simclr-stand-in`. Without one these
//! tests say that they were skipped.

mod batch_norm;
mod elementwise;
mod first_layer;
mod huge;
mod huge_images;
mod norm_pair;
mod nt_xent;
mod optimizer;
mod pair_loss;
mod pooling;
mod reductions;
mod rows;
mod selective;
mod stem;
mod strided;
mod support;
#[path = "../common/values.rs"]
mod values;
mod views;
