#!/bin/sh
# Kills a run with SIGKILL at random moments, resumes it each time, and compares the result with an uninterrupted run.
#
#   tools/kill_test.sh [KILLS] [DATA]
#
# KILLS defaults to 20. DATA is any data set that `simclr pretrain` reads; without it, a picture made here is copied
# under many names. SIMCLR names the program (default: target/release/simclr).
set -eu

kills=${1:-20}
data=${2:-}
program=${SIMCLR:-$(dirname "$0")/../target/release/simclr}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

if [ -z "$data" ]; then
    data=$work/data
    mkdir "$data"
    picture=$(dirname "$0")/../crates/data/tests/golden/colour.jpg
    for i in $(seq 100); do cp "$picture" "$data/$i.jpg"; done
fi

settings="data.image_size=16 encoder.width=0.0625 head.dim=16 train.batch=16 train.epochs=40 optim.warmup_epochs=1
    data.holdout=16 train.checkpoint_every=3 train.knn_every=0"

# Arguments as separate words, so that the program is this shell's own child and receives the signal.
# shellcheck disable=SC2086
set -- pretrain "$data" --set $settings --out

# Prints a random number from 0 to below $1.
random() {
    echo $(($(od -An -N2 -tu2 /dev/urandom) % $1))
}

start=$(date +%s%N)
"$program" "$@" "$work/reference" 2>/dev/null
length=$((($(date +%s%N) - start) / 1000000))
echo "uninterrupted: $length ms"

run=$work/run
killed=0
while [ "$killed" -lt "$kills" ]; do
    if [ -f "$run/encoder.safetensors" ]; then
        # The run finished before it was killed often enough: compare it, and start again from the beginning.
        cmp "$run/encoder.safetensors" "$work/reference/encoder.safetensors"
        rm -rf "$run"
    fi
    if [ -f "$run/config.toml" ]; then
        "$program" pretrain "$data" --out "$run" --resume 2>"$work/messages" &
    else
        "$program" "$@" "$run" 2>"$work/messages" &
    fi
    pid=$!
    pause=$(random $((length / 3 + 1)))
    sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
    if kill -9 "$pid" 2>/dev/null; then
        killed=$((killed + 1))
        wait "$pid" 2>/dev/null || true
        echo "killed after $pause ms, $(ls "$run/checkpoints" 2>/dev/null | wc -l) checkpoints"
    else
        wait "$pid" || { cat "$work/messages"; exit 1; }
    fi
    if grep -q 'damaged\|panicked\|cannot' "$work/messages"; then
        cat "$work/messages"
        exit 1
    fi
done
if [ -f "$run/config.toml" ]; then
    "$program" pretrain "$data" --out "$run" --resume 2>/dev/null
else
    "$program" "$@" "$run" 2>/dev/null
fi
cmp "$run/encoder.safetensors" "$work/reference/encoder.safetensors"
steps() { sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"loss":\([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"; }
[ "$(steps "$run")" = "$(steps "$work/reference")" ] || { echo "the logs differ"; exit 1; }
echo "$killed kills: the same encoder to the bit, each step once in the log"
