//! Data sets, decoding and the loader: a stream of batches of view pairs

#![forbid(unsafe_code)]
