//! ResNets, projection heads, losses, initialisation and parameter names

#![forbid(unsafe_code)]
