#!/usr/bin/env bash
# One training step here and in PyTorch, in turn, ROUNDS times each: the ratio of views per second is what counts.
#
#   PYTHON=/path/to/python bench/step_against_pytorch.sh [ROUNDS] [--encoder resnet18 --width 1 --size 32 --views 256]
#
# Needs `cargo build --release` first, and a Python with torch and torchvision. Prints one JSON object a run.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
[ $# -gt 0 ] && shift
python=${PYTHON:-python3}
for _ in $(seq "$rounds"); do
    echo "simclr f32: $(target/release/simclr bench step --precision f32 --json "$@" 2>/dev/null | tail -n 1)"
    echo "pytorch f32: $("$python" bench/pytorch_step.py "$@" 2>/dev/null | tail -n 1)"
    echo "pytorch f32 compiled: $("$python" bench/pytorch_step.py --compile "$@" 2>/dev/null | tail -n 1)"
done
