#!/usr/bin/env bash
# Feeds damaged files to the decoders and parsers for a minute: bash tools/fuzz.sh [SECONDS] [SEED]
# Fails if a panic gets out of the crate, or if something takes over five seconds, or asks for more than 4 GiB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the features of the whole workspace, which its tests are built with.
cargo build --release --quiet --workspace --example fuzz
target=${CARGO_TARGET_DIR:-target}
# What is declared may be reserved up to what one image may have; an allocation beyond that ends the process.
ulimit -v $((4 * 1024 * 1024))
"$target/release/examples/fuzz" "${1:-60}" crates/data/tests/golden "${2:-1}"
