#!/usr/bin/env bash
# Times simclr and PyTorch in turn, ROUNDS times each: the ratio of their speeds is what counts.
#
#   PYTHON=/path/to/python bench/against_pytorch.sh step|encode f32|bf16 [ROUNDS] [--encoder resnet18 --width 1 --size 32 --views 256]
#
# `step` is one training step; `encode` the encoder alone, with --images instead of --views. Needs `cargo build --release` first, and a Python with torch and
# torchvision. Prints one JSON object per run; stops at the first run that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?step or encode}
precision=${2:?f32 or bf16}
shift 2
rounds=5
if [[ ${1-} =~ ^[0-9]+$ ]]; then
    rounds=$1
    shift
fi
if [ "$what" = encode ] && [[ " $* " != *" --images "* ]]; then
    echo "encode needs --images N, the same for both programs" >&2
    exit 2
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
    measure "simclr $precision" "$program" bench "$what" --precision "$precision" --json "$@"
    measure "pytorch $precision" "$python" "bench/pytorch_$what.py" "${autocast[@]}" "$@"
    measure "pytorch $precision compiled" "$python" "bench/pytorch_$what.py" --compile "${autocast[@]}" "$@"
done
