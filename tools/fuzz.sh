#!/usr/bin/env bash
# Feeds damaged files to the decoders and parsers for a minute: bash tools/fuzz.sh [SECONDS] [SEED]
# Fails if a panic leaves the crate, or if a file takes over five seconds or more than 4 GiB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the features of the whole workspace, as its tests are built.
cargo build --release --quiet --workspace --example fuzz
target=${CARGO_TARGET_DIR:-target}
# Decoders may reserve what a file declares, up to the limit for one image; an allocation beyond 4 GiB ends the process.
ulimit -v $((4 * 1024 * 1024))
"$target/release/examples/fuzz" "${1:-60}" crates/data/tests/golden "${2:-1}"
