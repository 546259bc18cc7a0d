#!/usr/bin/env python3
"""Compares what `simclr` computes of imported checkpoints with the official code of SimCLR.

    tools/check_import.py CHECKOUT

CHECKOUT is one of github.com/google-research/simclr. Its networks get random weights and running averages, are saved by TensorFlow, imported, and
put over random images: h and z must be within 1e-5 of the largest value. Needs Python with tensorflow, tf_keras, numpy and pillow. SIMCLR names the
program (default: target/release/simclr).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/golden"))

import numpy as np
from PIL import Image

import official

PROGRAM = os.environ.get("SIMCLR", ROOT / "target/release/simclr")
ALLOWED = 1e-5
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


def simclr(*words):
    run = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"simclr {' '.join(map(str, words))}\n{run.stderr}")


def pictures(size, folder):
    """Three random PNGs of which `simclr` takes the central `size` pixels, unresized; and those pixels, from 0 to 1."""
    # Above 32 pixels it takes 7/8 of an image.
    assert size <= 32 or size % 7 == 0
    side = size if size <= 32 else size * 8 // 7
    border = (side - size) // 2
    # Large patches with noise upon them: like images, not all the same in the mean.
    draw = np.random.default_rng(2)
    patches = draw.integers(0, 200, (3, 4, 4, 3)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]
    images = (patches + draw.integers(0, 56, patches.shape)).astype(np.uint8)
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return images[:, border : border + size, border : border + size].astype(np.float32) / 255


def compare(what, got, expected):
    difference = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"  {what}: {difference:.1e}", flush=True)
    if not difference <= ALLOWED:
        sys.exit(f"{what} differs")


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
