"""Shared by the checks in this folder: running `simclr`, making images that it uses unresized, and comparing outputs."""

import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SIMCLR", ROOT / "target/release/simclr")
ALLOWED = 1e-5


def simclr(*words):
    run = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"simclr {' '.join(map(str, words))}\n{run.stderr}")
    return run.stdout


def side_of(size):
    """The side of images of which `simclr` takes the central `size` pixels, unresized."""
    # Above 32 pixels it takes 7/8 of an image, rounded: there is a side for every size.
    return size if size <= 32 else round(size * 8 / 7)


def save(pictures, size, folder):
    """Saves pictures of side `side_of(size)` as PNGs. Returns the pixels that `simclr` uses, (n, size, size, 3), from 0 to 1."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    # An odd margin has its extra pixel at the top and at the left.
    border = (side_of(size) - size + 1) // 2
    return pictures[:, border : border + size, border : border + size].astype(np.float32) / 255


def compare(what, got, expected):
    difference = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"  {what}: {difference:.1e}", flush=True)
    if not difference <= ALLOWED:
        sys.exit(f"{what} differs")
