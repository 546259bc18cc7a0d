#!/usr/bin/env python3
"""Compares the outputs of `simclr` with those of onnxruntime and torchvision, on files that `simclr export` wrote and on networks that it imports.

    tools/check_export.py IMAGES [RUN ...]

IMAGES is a folder of images, of which five are taken. Each RUN is exported in both formats; torchvision's ResNet-18 and ResNet-50, with
random weights, are imported; a ResNet-D is compared with timm's if timm is installed. Needs Python with numpy, pillow, onnx, onnxruntime, torch,
torchvision, safetensors. SIMCLR names the program (default: target/release/simclr). Fails if outputs differ by more than 1e-5 of the
largest value.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

import checks
from checks import PROGRAM, compare, simclr

try:
    import timm
except ImportError:
    timm = None

COUNT = 5
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pictures(images, size, folder):
    """Saves five of the images in `folder` for `simclr`. Returns the pixels that it uses, in PyTorch's layout."""
    side = checks.side_of(size)
    found = sorted(path for path in pathlib.Path(images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(found) < COUNT:
        sys.exit(f"{images}: fewer than {COUNT} images")
    chosen = [Image.open(path).convert("RGB") for path in found[:: len(found) // COUNT][:COUNT]]
    resized = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in chosen])
    return np.ascontiguousarray(checks.save(resized, size, folder).transpose(0, 3, 1, 2))


def embed(run, folder, work, *words):
    simclr("embed", run, folder, "--out", work / "rows.npy", *words)
    return np.load(work / "rows.npy")


def check_onnx(run, images, expected, work):
    """`expected` maps the name of each output to its values for all images."""
    words = ["--projection"] if "z" in expected else []
    file = work / "encoder.onnx"
    simclr("export", run, "--to", "onnx", "--out", file, *words)
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file)
    assert [output.name for output in session.get_outputs()] == list(expected)
    for batch in (1, COUNT):
        outputs = session.run(None, {"images": images[:batch]})
        for (name, rows), output in zip(expected.items(), outputs):
            compare(f"onnxruntime, {name} of {batch}", output, rows[:batch])


def check_torchvision(file, name, images, expected):
    check_weights(file, getattr(torchvision.models, name)(), "torchvision", images, expected)


def check_weights(file, network, library, images, expected):
    missing, unexpected = network.load_state_dict(load_file(file), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], []), (missing, unexpected)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        compare(f"{library}, h", network.eval()(torch.from_numpy(images)).numpy(), expected)


def check_run(run, images, work):
    """Checks a run of any precision, in f32."""
    print(run)
    weights, again = work / "weights.safetensors", work / "again"
    head = subprocess.run([PROGRAM, "export", run, "--to", "torchvision", "--out", weights, "--projection"], capture_output=True)
    if head.returncode != 0:
        simclr("export", run, "--to", "torchvision", "--out", weights)
    made = json.loads(simclr("import", weights, "--out", again, "--precision", "f32", "--json"))
    pixels = pictures(images, made["image_size"], work / "pictures")
    expected = {"h": embed(again, work / "pictures", work)}
    if made["head"] != "none":
        expected["z"] = embed(again, work / "pictures", work, "--projection")
    check_onnx(again, pixels, expected, work)
    bottleneck = made["encoder"] not in ("resnet18", "resnet34")
    plain = made["width"] == 1 and made["stem"] == "imagenet" and made["selective_kernels"] == 0
    same_shortcuts = bottleneck or made["shortcut"] == "auto"
    if plain and same_shortcuts and made["variant"] == "d" and timm:
        simclr("export", run, "--to", "torchvision", "--out", weights)
        check_weights(weights, timm.create_model(made["encoder"] + "d"), "timm", pixels, expected["h"])
    if plain and same_shortcuts and made["variant"] == "standard" and made["encoder"] != "resnet200":
        simclr("export", run, "--to", "torchvision", "--out", weights)
        if made["normalize"] == "imagenet":
            pixels = normalized(pixels)
        check_torchvision(weights, made["encoder"], pixels, expected["h"])


def normalized(pixels):
    shape = (1, 3, 1, 1)
    return (pixels - np.float32(MEAN).reshape(shape)) / np.float32(DEVIATION).reshape(shape)


def check_import(name, images, work):
    print(f"torchvision's {name}, with random weights")
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in [
                (module.weight, 0.5, 1), (module.bias, -0.1, 0.1), (module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 1.5)
            ]:
                torch.nn.init.uniform_(values, low, high)
    weights, run = work / "weights.safetensors", work / "run"
    save_file(network.state_dict(), weights)
    simclr("import", weights, "--out", run, "--encoder", name, "--normalize", "imagenet")
    pixels = pictures(images, 224, work / "pictures")
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized(pixels))).numpy()
    compare("simclr, h", embed(run, work / "pictures", work), expected)
    part, again = work / "training.ckpt", work / "of_part"
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, part)
    simclr("import", part, "--out", again, "--normalize", "imagenet")
    compare("simclr, h by torch.save", embed(again, work / "pictures", work), expected)
    check_onnx(run, pixels, {"h": expected}, work)
    simclr("export", run, "--to", "torchvision", "--out", weights)
    check_torchvision(weights, name, normalized(pixels), expected)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    images, *runs = sys.argv[1:]
    checks = [(check_run, run) for run in runs] + [(check_import, name) for name in ("resnet18", "resnet50")]
    for check, subject in checks:
        with tempfile.TemporaryDirectory() as work:
            check(subject, images, pathlib.Path(work))


if __name__ == "__main__":
    main()
