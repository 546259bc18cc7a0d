"""Measures images per second of decoding and two SimCLR views of each image with albumentations, on one thread.

    python bench/albumentations_views.py DATA SIZE [SECONDS]

DATA is a folder of JPEG files, searched recursively, of which the first 256 are read into memory beforehand, or a CIFAR-10
binary (.bin), whose first 256 images need no decoding. Needs albumentations and OpenCV. The last line is a JSON object.
"""

import json
import pathlib
import sys
import time

import albumentations as A
import cv2
import numpy as np

IMAGES = 256


def images(path):
    """Returns 256 images as they are stored, and a function that decodes one."""
    path = pathlib.Path(path)
    if path.suffix == ".bin":
        records = np.fromfile(path, np.uint8, IMAGES * 3073).reshape(-1, 3073)
        pixels = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return list(pixels), lambda image: image
    files = [np.frombuffer(file.read_bytes(), np.uint8) for file in sorted(path.rglob("*.jpg"))[:IMAGES]]
    return files, lambda data: cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def family(size):
    """The family of the paper; for small views, with half the strength and no blur."""
    strength = 1.0 if size > 64 else 0.5
    factors = (1 - 0.8 * strength, 1 + 0.8 * strength)
    operators = [
        A.RandomResizedCrop(size=(size, size), scale=(0.08, 1.0)),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(factors, factors, factors, (-0.2 * strength, 0.2 * strength), p=0.8),
        A.ToGray(p=0.2),
    ]
    if size > 64:
        side = size // 10 | 1
        operators.append(A.GaussianBlur(blur_limit=(side, side), sigma_limit=(0.1, 2.0), p=0.5))
    # The output stays 8-bit, like that of simclr.
    return A.Compose(operators)


def main():
    cv2.setNumThreads(1)
    size, seconds = int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 4.0
    data, decode = images(sys.argv[1])
    view = family(size)

    def both(item):
        image = decode(item)
        return view(image=image)["image"], view(image=image)["image"]

    # Freeing a large block raises the size above which the C library maps new pages for every array; without this, page faults
    # would take almost half of the time. Training programs free such blocks, too.
    np.ones(24 << 20, np.uint8)
    both(data[0])
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        both(data[made % len(data)])
        made += 1
    print(json.dumps({"images_per_s": made / (time.perf_counter() - start)}))


main()
