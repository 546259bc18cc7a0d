#!/usr/bin/env bash
# Times one training step of simclr and of PyTorch, in turn, ROUNDS times each: the ratio of their views per second is what counts.
#
#   PYTHON=/path/to/python bench/step_against_pytorch.sh f32|bf16 [ROUNDS] [--encoder resnet18 --width 1 --size 32 --views 256]
#
# Needs `cargo build --release` first, and a Python with torch and torchvision. Prints one JSON object per run; stops at the first run that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
precision=${1:?f32 or bf16}
shift
rounds=5
if [[ ${1-} =~ ^[0-9]+$ ]]; then
    rounds=$1
    shift
fi
program=${SIMCLR:-target/release/simclr}
python=${PYTHON:-python3}
autocast=()
[ "$precision" = bf16 ] && autocast=(--bf16)

# Prints the name of a run and the last line of its command's output.
measure() {
    local name=$1 output
    shift
    output=$("$@")
    echo "$name: ${output##*$'\n'}"
}

for ((round = 0; round < rounds; round++)); do
    measure "simclr $precision" "$program" bench step --precision "$precision" --json "$@"
    measure "pytorch $precision" "$python" bench/pytorch_step.py "${autocast[@]}" "$@"
    measure "pytorch $precision compiled" "$python" bench/pytorch_step.py --compile "${autocast[@]}" "$@"
done
