"""Times one SimCLR training step in PyTorch, to compare with `simclr bench step`.

    python bench/pytorch_step.py --encoder resnet18 --width 1 --size 32 --views 256 [--bf16 | --fp16] [--compile] [--device cuda] [--threads N] [--steps N]

Uses channels last throughout, the faster layout wherever it was tried; on a GPU, allows tf32 and lets cuDNN try its algorithms. Prints one JSON object.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet


def encoder(name: str, width: float, size: int) -> tuple[nn.Module, int]:
    """torchvision's ResNet with `width` times the channels and, up to 32 pixels, the small stem."""
    base = round(64 * width)
    net = getattr(resnet, name)(zero_init_residual=True)
    block = type(net.layer1[0])
    depths = [len(stage) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)]
    small = size <= 32
    net.inplanes = base
    net.conv1 = nn.Conv2d(3, base, 3 if small else 7, stride=1 if small else 2, padding=1 if small else 3, bias=False)
    net.bn1 = nn.BatchNorm2d(base)
    if small:
        net.maxpool = nn.Identity()
    for index, depth in enumerate(depths):
        stage = net._make_layer(block, base << index, depth, stride=1 if index == 0 else 2)
        setattr(net, f"layer{index + 1}", stage)
    net.fc = nn.Identity()
    return net, (base << 3) * block.expansion


def nt_xent(z: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    """The loss of arXiv:2002.05709, with first views in the first half of z and second views, in the same order, in the other."""
    z = F.normalize(z.float(), dim=1)
    similarity = z @ z.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width", type=float, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--views", type=int, default=256)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--fp16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    on_gpu = args.device.startswith("cuda")
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True

    net, features = encoder(args.encoder, args.width, args.size)
    head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 128))
    model = nn.Sequential(net, head).train().to(args.device, memory_format=torch.channels_last)
    views = torch.rand(args.views, 3, args.size, args.size).to(args.device, memory_format=torch.channels_last)
    forward = torch.compile(model) if args.compile else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    scaler = torch.amp.GradScaler(args.device, enabled=args.fp16)
    half = torch.float16 if args.fp16 else torch.bfloat16
    warm_up = 10 if on_gpu else 2  # Compile, choose kernels and fill caches.

    seconds = []
    for _ in range(args.steps + warm_up):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, dtype=half, enabled=args.bf16 or args.fp16):
            z = forward(views)
        scaler.scale(nt_xent(z)).backward()
        scaler.step(optimizer)
        scaler.update()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[warm_up:])
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"torch": torch.__version__, "views_per_s": args.views / median, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
