#!/usr/bin/env bash
# One training step here and in PyTorch, in turn, ROUNDS times each: the ratio of views per second is what counts.
#
#   PYTHON=/path/to/python bench/step_against_pytorch.sh f32|bf16 [ROUNDS] [--encoder resnet18 --width 1 --size 32 --views 256]
#
# Needs `cargo build --release` first, and a Python with torch and torchvision. Prints one JSON object a run.
set -euo pipefail
cd "$(dirname "$0")/.."
precision=${1:?f32 or bf16}
rounds=${2:-5}
shift $(($# < 2 ? $# : 2))
program=${SIMCLR:-target/release/simclr}
python=${PYTHON:-python3}
autocast=()
[ "$precision" = bf16 ] && autocast=(--bf16)
for _ in $(seq "$rounds"); do
    echo "simclr $precision: $("$program" bench step --precision "$precision" --json "$@" 2>/dev/null | tail -n 1)"
    echo "pytorch $precision: $("$python" bench/pytorch_step.py "${autocast[@]}" "$@" 2>/dev/null | tail -n 1)"
    echo "pytorch $precision compiled: $("$python" bench/pytorch_step.py --compile "${autocast[@]}" "$@" 2>/dev/null | tail -n 1)"
done
