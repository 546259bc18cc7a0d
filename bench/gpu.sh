#!/usr/bin/env bash
# The figures of an NVIDIA GPU: steps, steps that are fed with images, a whole run on CIFAR-10, a batch of 4,096 images at 224 x 224.
#
#   bench/gpu.sh CIFAR [OUT] [PYTHON]      CIFAR: train/CLASS/*.jpg and test/CLASS/*.jpg, or the CIFAR-10 binaries
#
# Needs `cargo build --release --features cuda` first. With PYTHON, an interpreter that has PyTorch and torchvision, PyTorch's steps are timed before. The first
# run on a machine tries cuDNN's engines, which takes up to a minute a network; what it finds is kept in the user's cache folder. About six minutes on an H200.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$here/../target/release/simclr
cifar=${1:?the folder of CIFAR-10}
out=${2:-runs/gpu}
python=${3:-}
small=(--encoder resnet18 --size 32 --views 4096)
large=(--encoder resnet50 --size 224 --views 512)
if [ -n "$python" ]; then
    for kind in "--bf16" "--fp16"; do
        "$python" "$here/pytorch_step.py" "${small[@]}" "$kind" --compile --device cuda --steps 30
        "$python" "$here/pytorch_step.py" "${large[@]}" "$kind" --compile --device cuda --steps 30
    done
fi
for precision in "bf16" "fp16 --deterministic false"; do
    # shellcheck disable=SC2086
    "$program" bench step --device cuda "${small[@]}" --precision $precision --steps 20
    # shellcheck disable=SC2086
    "$program" bench step --device cuda "${large[@]}" --precision $precision --steps 20
done
"$program" bench step --device cuda "${small[@]}" --precision bf16 --quick --data "$cifar"
"$program" bench step --device cuda --encoder resnet50 --size 224 --views 8192 --precision bf16 --memory blocks --steps 3 --quick
start=$SECONDS
"$program" pretrain "$cifar" --out "$out" --preset cifar10 --set train.epochs=100 --set train.health_every=25 --set train.knn_every=25 --device cuda
echo "100 epochs: $((SECONDS - start)) s"
"$program" knn "$out" --train "$cifar" --device cuda
"$program" linear "$out" --train "$cifar" --method logistic --device cuda
