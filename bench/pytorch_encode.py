"""Times encoding in PyTorch, to compare with `simclr bench encode`: the forward pass by running averages.

    python bench/pytorch_encode.py --encoder resnet50 --width 1 --size 224 --images 32 [--bf16] [--compile] [--threads N] [--batches N]

Uses channels last, and inference mode; compiled, the weights are constants (freezing), so that PyTorch folds BatchNorm into convolutions and packs weights once.
Images are f32 already. Prints one JSON object.
"""

import argparse
import json
import statistics
import time

import torch
from pytorch_step import encoder
from torch._inductor import config as inductor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width", type=float, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batches", type=int, default=9)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    net, _ = encoder(args.encoder, args.width, args.size)
    net = net.eval().to(memory_format=torch.channels_last)
    images = torch.rand(args.images, 3, args.size, args.size).to(memory_format=torch.channels_last)
    if args.compile:
        inductor.freezing = True
        net = torch.compile(net)
    warm_up = 2  # Compile, choose kernels and fill caches.
    seconds = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        for _ in range(args.batches + warm_up):
            start = time.perf_counter()
            net(images)
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[warm_up:])
    print(json.dumps({"images_per_s": args.images / median, "seconds_per_batch": median}))


if __name__ == "__main__":
    main()
