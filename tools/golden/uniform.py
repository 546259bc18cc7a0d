"""Values that PyTorch and the Rust tests both compute from a name, so that golden files need to hold only results."""

import numpy as np
import torch


def fnv1a64(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def uniform(name, *shape):
    """(splitmix64(fnv1a64(name) + i) >> 40) / 2^23 - 1 for i = 0, 1, ...: in [-1, 1), exact in 32-bit floats."""
    z = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(fnv1a64(name)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0).reshape(*shape)
