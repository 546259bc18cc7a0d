//! `simclr`: unlabelled images in, an image encoder out.

#![forbid(unsafe_code)]

fn main() {}
