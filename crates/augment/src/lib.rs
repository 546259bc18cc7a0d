//! Views: an 8-bit RGB image and a random stream in, an S x S view out

#![forbid(unsafe_code)]
