#!/usr/bin/env bash
# Measures an NVIDIA GPU: training steps, steps fed with images, a whole run on CIFAR-10, a batch of 4,096 images at 224 x 224.
#
#   bench/gpu.sh CIFAR [OUT] [PYTHON] [PART ...]
#
# CIFAR: train/CLASS/*.jpg and test/CLASS/*.jpg, or the CIFAR-10 binaries. OUT: a folder for the run, the log of all parts and the cache of what was measured on the card. PYTHON: an
# interpreter that has PyTorch and torchvision, or "-" for none. PART: the parts to do, in the order given: steps, fed, run, large, pytorch [default: all].
#
# Needs `cargo build --release --features cuda` first. The first run on a machine times cuDNN's engines, some seconds per network; the results are kept in OUT/cache and, packed, in
# OUT/cache.tgz. CACHE=FILE starts from such a file, made on another machine with the same kind of card. A part that fails or takes too long does not stop the others.
# On an H200 `steps fed` take about a minute and a half, `run large` three minutes, and `pytorch` some more.
#
# The part `large` takes about 110 GB, or about half of that on a GPU with less than 120 GB, where it has 4,096 views. If the process has to search for engines, its peak of
# memory includes the search: run this part twice for that figure.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=${PROGRAM:-$here/../target/release/simclr}
device=${DEVICE:-cuda}
cifar=${1:?the folder of CIFAR-10}
out=${2:-runs/gpu}
python=${3:--}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- steps fed run large pytorch
read -ra small <<<"${SMALL:---encoder resnet18 --size 32 --views 4096}"
read -ra large <<<"${LARGE:---encoder resnet50 --size 224 --views 512}"
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1)
[ "${memory:-0}" -ge 120000 ] && views=8192 || views=4096
read -ra huge <<<"${HUGE:---encoder resnet50 --size 224 --views $views}"
epochs=${EPOCHS:-100}
# Other keys of the run, such as SETS="optim.name=sgd optim.rate=0.24 optim.weight_decay=5e-4".
sets=()
for each in ${SETS:-}; do sets+=(--set "$each"); done
mkdir -p "$out"
[ -z "${CACHE:-}" ] || tar -C "$out" -xzf "$CACHE"
XDG_CACHE_HOME=$(cd "$out" && pwd)/cache
export XDG_CACHE_HOME
failed=0
exec > >(tee "$out/log") 2>&1
log=$!
# Packs the results so far, however the script ends.
finish() {
    [ ! -d "$out/cache" ] || tar -C "$out" -czf "$out/cache.tgz" cache
    exec >&- 2>&-
    wait "$log"
}
trap finish EXIT

# Prints and runs a command for at most $1 seconds, then prints how long it took.
timed() {
    local most=$1 start=$SECONDS
    shift
    echo "+ $*"
    timeout "$most" "$@" || {
        echo "failed ($?) after $((SECONDS - start)) s: $*"
        failed=1
    }
    echo "= $((SECONDS - start)) s"
}
step() { timed "$1" "$program" bench step --device "$device" "${@:2}"; }

steps() {
    step 60 "${small[@]}" --precision bf16 --steps 20
    step 60 "${small[@]}" --precision bf16 --deterministic false --steps 20 --quick
    # Only GPUs have f16; its table has a row for norm_conv2d where cuDNN's graphs with BatchNorm were faster.
    [ "$device" = cpu ] || step 60 "${small[@]}" --precision fp16 --deterministic false --steps 20
    step 90 "${large[@]}" --precision bf16 --steps 10
    [ "$device" = cpu ] || step 120 "${large[@]}" --precision fp16 --deterministic false --steps 10 --quick
}
fed() {
    step 90 "${small[@]}" --precision bf16 --steps 30 --quick --data "$cifar"
}
run() {
    rm -rf "$out/run"
    # Only training: no measurements between epochs, few checkpoints.
    timed 400 "$program" pretrain "$cifar" --out "$out/run" --preset cifar10-short --set "train.epochs=$epochs" --set train.health_every=0 --set train.knn_every=0 \
        --set train.checkpoint_every=2000 "${sets[@]}" --device "$device"
    timed 60 "$program" knn "$out/run" --train "$cifar" --device "$device"
    timed 120 "$program" linear "$out/run" --train "$cifar" --method logistic --device "$device"
}
large() {
    step 150 "${huge[@]}" --precision bf16 --memory blocks --steps 2 --quick
}
pytorch() {
    [ "$python" != - ] || { echo "PyTorch is not timed: no PYTHON was given"; return; }
    for kind in --bf16 --fp16; do
        timed 150 "$python" "$here/pytorch_step.py" "${small[@]}" $kind --compile --device "$device" --steps 30
        timed 150 "$python" "$here/pytorch_step.py" "${large[@]}" $kind --compile --device "$device" --steps 30
    done
}
for part in "$@"; do
    case $part in
        steps | fed | run | large | pytorch) echo "== $part" && "$part" ;;
        *) echo "unknown part $part: must be steps, fed, run, large or pytorch" >&2 && failed=1 ;;
    esac
done
exit "$failed"
