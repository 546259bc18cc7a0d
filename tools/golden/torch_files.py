#!/usr/bin/env python3
"""Makes files of torch.save with the tensors of a ResNet-18 of width 1/64, in crates/exchange/tests/golden/torch. Needs Python with torch.

Value i of tensor k, in the order of their names, is ((31 i + 7 k) mod 97 - 48) / 64, its absolute value in variances: the tests compute the same.
"""

import argparse
import pathlib

import torch

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/exchange/tests/golden/torch"


def shapes():
    def norm(name, channels):
        return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}

    out = {"conv1.weight": (1, 3, 7, 7), **norm("bn1", 1)}
    inputs = 1
    for stage in range(4):
        outputs = 1 << stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            first = inputs if block == 0 else outputs
            out |= {f"{name}.conv1.weight": (outputs, first, 3, 3), f"{name}.conv2.weight": (outputs, outputs, 3, 3)}
            out |= norm(f"{name}.bn1", outputs) | norm(f"{name}.bn2", outputs)
            if first != outputs:
                out |= {f"{name}.downsample.0.weight": (outputs, first, 1, 1), **norm(f"{name}.downsample.1", outputs)}
        inputs = outputs
    return out


def values(k, name, shape):
    out = ((31 * torch.arange(torch.Size(shape).numel()) + 7 * k) % 97 - 48) / 64
    return out.abs() if name.endswith(".running_var") else out


def tensors(dtype):
    """Makes all tensors views of one storage, which takes less space in a file than a storage each; one convolution is channels last."""
    each = sorted(shapes().items())
    storage = torch.cat([values(k, name, shape) for k, (name, shape) in enumerate(each)]).to(dtype)
    out, start = {}, 0
    for name, shape in each:
        count = torch.Size(shape).numel()
        out[name] = storage[start : start + count].view(shape)
        start += count
    name = "layer4.1.conv2.weight"
    out[name] = out[name].contiguous(memory_format=torch.channels_last)
    return out


def main():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    classifier = {"fc.weight": torch.zeros(2, 8), "fc.bias": torch.zeros(2)}
    torch.save({**tensors(torch.float32), **classifier}, GOLDEN / "plain.pth")
    torch.save(tensors(torch.float16), GOLDEN / "legacy.pt", _use_new_zipfile_serialization=False)
    weights = {f"model.backbone.{name}": tensor for name, tensor in tensors(torch.bfloat16).items()}
    weights["model.projector.0.weight"] = torch.zeros(4, 8)
    lightning = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": weights,
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "hyper_parameters": argparse.Namespace(width=64, path=pathlib.PurePosixPath("data")),
    }
    torch.save(lightning, GOLDEN / "lightning.ckpt")


if __name__ == "__main__":
    main()
