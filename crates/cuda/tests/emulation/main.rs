//! Runs every kernel on the CPU in place of a GPU, and compares it with the portable form that specifies it.
//!
//! The source for the GPU's compiler is compiled by the system's C++ compiler: see `simclr-stand-in`. Without one,
//! these tests report that they are skipped.

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
