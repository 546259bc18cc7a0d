"""Ten steps of fine-tuning a ResNet-18, in PyTorch: the losses and weights that crates/eval/src/protocols/network.rs must reach.

    python tools/golden/finetune.py > crates/eval/tests/golden/finetune.json

An encoder of a quarter of the width, then the first layer of a head with plain biases, Linear(128, 128) and ReLU, then a classifier of ten classes.
Weights and the 32 images of each step come from the formulas of resnet18.py; image i is of class i % 10. Softmax cross-entropy, BatchNorm with
batch statistics, SGD with Nesterov momentum 0.9 and a cosine schedule, decay 0.1 of weights only. As in TensorFlow, and unlike
torch.optim.SGD, the rate multiplies the gradient before it enters the momentum. The rate is low: at 0.05, rounding to 32 bits moves the loss by 7e-3 within three steps.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F

from resnet18 import encode, first_head_layer, first_values, make_parameters, views

RATE = 0.0002
RATES = [round(RATE / 2 * (1 + math.cos(math.pi * step / 10)), 9) for step in range(10)]
KEPT = [
    "conv1.weight", "bn1.bias", "layer2.0.downsample.0.weight", "layer4.1.bn2.weight", "head.0.linear.bias", "fc.weight", "fc.bias",
    "bn1.running_mean", "layer4.1.bn2.running_var",
]


def nesterov(p, momentum, rate):
    with torch.no_grad():
        for name, w in p.items():
            push = rate * (w.grad + (0.1 * w if w.ndim > 1 else 0.0))
            momentum[name] = 0.9 * momentum.get(name, 0.0) + push
            w -= 0.9 * momentum[name] + push
            w.grad = None


def run(dtype):
    p, buffers = make_parameters(dtype, 16, 10)
    momentum, losses = {}, []
    for step, rate in enumerate(RATES):
        x = views(step, dtype)
        scores = F.linear(first_head_layer(p, encode(p, buffers, x)), p["fc.weight"], p["fc.bias"])
        loss = F.cross_entropy(scores, torch.arange(len(x)) % 10)
        loss.backward()
        losses.append(loss.item())
        nesterov(p, momentum, rate)
    return losses, first_values({**p, **buffers}, KEPT)


torch.set_num_threads(1)
losses, after = run(torch.float64)
single, _ = run(torch.float32)
print("relative differences by rounding:", [abs(a - b) / a for a, b in zip(losses, single)], file=sys.stderr)
result = {
    "made_by": f"tools/golden/finetune.py, PyTorch {torch.__version__}",
    "rates": RATES,
    "losses": losses,
    "parameters_after": after,
}
json.dump(result, sys.stdout, indent=1)
print()
