#!/usr/bin/env bash
# Measures images per second of decoding and two views: simclr and albumentations in turn on one thread, and simclr on two.
#
#   bench/views_against_albumentations.sh SIMCLR PYTHON ROUNDS DATA:SIZE [DATA:SIZE ...]
#
# DATA is a folder of JPEG files or a CIFAR-10 binary (.bin). Prints one line per round, then the medians and their ratio.
set -euo pipefail
[ $# -ge 4 ] || { sed -n 's/^# \{0,1\}//p' "$0" | sed 1d; exit 2; }
simclr=$1 python=$2 rounds=$3
shift 3
here=$(dirname "$0")
seconds=${SECONDS_EACH:-3}

ours() {
    local strength=1.0
    [ "$2" -gt 64 ] || strength=0.5
    "$simclr" bench views "$1" --size "$2" --threads "$3" --seconds "$seconds" \
        --set view.color_strength=$strength --json | number
}
peer() { "$python" "$here/albumentations_views.py" "$1" "$2" "$seconds" | number; }
number() { tail -n 1 | sed 's/.*"images_per_s": *\([0-9.]*\).*/\1/'; }
median() { sort -g | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

for work in "$@"; do
    data=${work%:*} size=${work##*:}
    one=() two=() other=()
    for round in $(seq "$rounds"); do
        one+=("$(ours "$data" "$size" 1)")
        other+=("$(peer "$data" "$size")")
        two+=("$(ours "$data" "$size" 2)")
        echo "$work round $round: simclr ${one[-1]}, albumentations ${other[-1]}, simclr on two threads ${two[-1]}"
    done
    a=$(printf '%s\n' "${one[@]}" | median) b=$(printf '%s\n' "${other[@]}" | median)
    c=$(printf '%s\n' "${two[@]}" | median)
    awk -v w="$work" -v a="$a" -v b="$b" -v c="$c" 'BEGIN {
        printf "%s median: simclr %.1f, albumentations %.1f, ratio %.2f; two threads %.1f, %.2f times one\n", w, a, b, a / b, c, c / a }'
done
