"""Times NT-Xent in PyTorch on the CPU, forward and backward, to compare with `cargo run --release -p simclr-kernels --example nt_xent_bench`.

    python bench/nt_xent.py [--views 8192] [--dim 128] [--threads 2] [--compile] [--repeats 7]

The gradient is with respect to z before normalisation. Prints one JSON object.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from torch.nn import functional as F


def nt_xent(z: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    z = F.normalize(z, dim=1)
    similarity = z @ z.t() / temperature
    n = len(z)
    similarity.fill_diagonal_(-1e9)
    return F.cross_entropy(similarity, (torch.arange(n) + n // 2) % n)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    z = torch.randn(args.views, args.dim, requires_grad=True)
    loss = torch.compile(nt_xent) if args.compile else nt_xent
    before, seconds = peak_bytes(), []
    for _ in range(args.repeats + 2):
        z.grad = None
        start = time.perf_counter()
        loss(z).backward()
        seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[2:])  # The first two compile and fill caches.
    print(json.dumps({
        "engine": f"torch {torch.__version__}" + (" compiled" if args.compile else ""),
        "views": args.views, "dim": args.dim, "threads": args.threads,
        "median_s": statistics.median(seconds), "fastest_s": seconds[0], "slowest_s": seconds[-1],
        "bytes_beyond_inputs": peak_bytes() - before,
    }))


if __name__ == "__main__":
    main()
