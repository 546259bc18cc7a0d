#!/usr/bin/env python3
"""Compares the outputs of `simclr` on imported checkpoints with those of the official code of SimCLR.

    tools/check_import.py CHECKOUT

CHECKOUT is a clone of github.com/google-research/simclr. Its networks get random weights and running averages, are saved by TensorFlow, imported,
and run on random images: h and z must agree to within 1e-5 of the largest value. Needs Python with tensorflow, tf_keras, numpy and
pillow. SIMCLR names the program (default: target/release/simclr).
"""

import pathlib
import sys
import tempfile

import numpy as np

import checks
from checks import compare, simclr

sys.path.insert(0, str(checks.ROOT / "tools/golden"))
import official

NETWORKS = {
    "ResNet-50": dict(depth=50, width=1, size=224),
    "ResNet-50 2x, a head of three layers": dict(depth=50, width=2, size=224, layers=3, dim=64),
    "ResNet-18 of images whose pool has an odd size": dict(depth=18, width=1, size=98),
    "ResNet-34 of small images": dict(depth=34, width=1, size=32),
    "ResNet-50 with selective kernels": dict(depth=50, width=1, size=224, sk_ratio=0.0625, layers=3),
    "ResNet-101 with selective kernels, of small images": dict(depth=101, width=1, size=32, sk_ratio=0.0625),
    "ResNet-18 with the shortcuts of a ResNet-D, of small images, of TensorFlow 2": dict(depth=18, width=1, size=32, sk_ratio=0.0625, version=2),
    "ResNet-50 of TensorFlow 2": dict(depth=50, width=1, size=224, version=2),
    "ResNet-50 with selective kernels, a SavedModel of TensorFlow 2": dict(depth=50, width=1, size=224, sk_ratio=0.0625, version="saved model"),
}


def pictures(size, folder):
    """Saves three random pictures in `folder` for `simclr`. Returns the pixels that it uses."""
    side = checks.side_of(size)
    # Large patches with noise on top: like real images, these differ in their mean.
    draw = np.random.default_rng(2)
    patches = draw.integers(0, 200, (3, 4, 4, 3)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]
    return checks.save((patches + draw.integers(0, 56, patches.shape)).astype(np.uint8), size, folder)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    modules = official.official(sys.argv[1])
    for name, network in NETWORKS.items():
        with tempfile.TemporaryDirectory() as work:
            print(name, flush=True)
            work, size = pathlib.Path(work), network.pop("size")
            images = pictures(size, work / "images")
            h, z = official.checkpoint(modules, work, images, **network)
            simclr("import", work, "--out", work / "run", "--size", size)
            for what, expected, words in [("h", h, []), ("z", z, ["--projection"])]:
                simclr("embed", work / "run", work / "images", "--out", work / "rows.npy", *words)
                compare(what, np.load(work / "rows.npy"), expected)


if __name__ == "__main__":
    main()
