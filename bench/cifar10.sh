#!/usr/bin/env bash
# Ten epochs on CIFAR-10, then kNN and logistic regression, for each seed: the accuracies of the README.
#
#   bench/cifar10.sh DATA [OUT] [SEED ...]        DATA: train/CLASS/*.jpg and test/CLASS/*.jpg, or the CIFAR-10 binaries
#
# Needs `cargo build --release` first. Prints a JSON object per protocol and seed; takes about seven minutes per seed on two cores of a Zen 5.
set -euo pipefail
program=$(cd "$(dirname "$0")/.." && pwd)/target/release/simclr
data=${1:?the folder of CIFAR-10}
out=${2:-runs/cifar10}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- 0 1 2
for seed in "$@"; do
    run=$out/seed-$seed
    start=$SECONDS
    "$program" pretrain "$data" --out "$run" --preset small --seed "$seed"
    echo "seed $seed: $((SECONDS - start)) s"
    "$program" knn "$run" --train "$data" --json | tail -n 1
    "$program" linear "$run" --train "$data" --method logistic --json | tail -n 1
done
