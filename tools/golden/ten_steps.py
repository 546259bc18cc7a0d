"""Ten steps of SimCLR on a ResNet-18, in PyTorch: the losses that crates/train/tests/ten_steps.rs must reach.

    python tools/golden/ten_steps.py > crates/train/tests/golden/ten_steps.json

Weights and views come from a formula that both sides implement (uniform.py), so that only the figures are kept. Its i runs
over the values in the engine's order: (out, h, w, in) for a convolution's weights, (out, in) for a dense
layer's, (view, row, column, channel) for views.

    convolution, dense weights   uniform(name) sqrt(6 / fan_in)
    gamma (x.weight of a norm)   1 + 0.1 uniform(name)
    beta, dense bias             0.1 uniform(name)
    views of step t              bytes (4 tint + 2 square + 2 fine) // 8, over 255: byte(name) is (uniform(name) + 1) 128,
                                 rounded down; "tint.t" has one for each image and channel, "square.t" for each image,
                                 8 x 8 pixels and channel, "fine.t" for each view, pixel and channel; view v is of image v % 16

The network is torchvision's ResNet-18 with the CIFAR stem (3 x 3, stride 1, no pooling); the head is Linear(512, 512), ReLU,
Linear(512, 128). NT-Xent with tau = 0.5 on normalised z, positives i and i + 16 modulo 32. LARS with momentum 0.9, trust
coefficient 0.001, decay 1e-4, neither adaptation nor decay for norms and biases, on the first ten steps of a warm-up.

The curve in 64-bit floats is the reference. The one in 32-bit floats shows what rounding alone does: up to 3e-6; its share grows three times a
step at rates of 0.5, where no two implementations stay together for ten steps.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F

from uniform import uniform

IMAGES, SIZE = 16, 32
RATES = [round(0.01 * (step + 1), 2) for step in range(10)]
KEPT = [
    "conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight",
    "layer4.1.bn2.bias", "head.0.linear.weight", "head.1.linear.bias",
    "bn1.running_mean", "layer4.1.bn2.running_mean", "layer4.1.bn2.running_var",
]


def make_parameters(dtype):
    """Parameters in 32-bit precision, whatever the type they are then computed with."""
    p, norms = {}, []

    def add(name, value):
        p[name] = value.float().to(dtype).contiguous().requires_grad_()

    def conv(name, out, into, side):
        scale = np.float32(np.sqrt(6.0 / (into * side * side)))
        add(name, (uniform(name, out, side, side, into).float() * scale).permute(0, 3, 1, 2))

    def norm(name, channels):
        norms.append(name)
        add(f"{name}.weight", 1.0 + np.float32(0.1) * uniform(f"{name}.weight", channels).float())
        add(f"{name}.bias", np.float32(0.1) * uniform(f"{name}.bias", channels).float())

    def dense(name, out, into):
        scale = np.float32(np.sqrt(6.0 / into))
        add(f"{name}.weight", uniform(f"{name}.weight", out, into).float() * scale)
        add(f"{name}.bias", np.float32(0.1) * uniform(f"{name}.bias", out).float())

    conv("conv1.weight", 64, 3, 3)
    norm("bn1", 64)
    into = 64
    for stage, width in enumerate([64, 128, 256, 512], 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1.weight", width, into, 3)
            norm(f"{name}.bn1", width)
            conv(f"{name}.conv2.weight", width, width, 3)
            norm(f"{name}.bn2", width)
            if into != width:
                conv(f"{name}.downsample.0.weight", width, into, 1)
                norm(f"{name}.downsample.1", width)
            into = width
    dense("head.0.linear", 512, 512)
    dense("head.1.linear", 128, 512)
    buffers = {}
    for name in norms:
        channels = p[f"{name}.weight"].numel()
        buffers[f"{name}.running_mean"] = torch.zeros(channels, dtype=dtype)
        buffers[f"{name}.running_var"] = torch.ones(channels, dtype=dtype)
    return p, buffers


def byte(name, *shape):
    return ((uniform(name, *shape) + 1.0) * 128.0).long()


def views(step, dtype):
    tint = byte(f"tint.{step}", IMAGES, 1, 1, 3)
    square = byte(f"square.{step}", IMAGES, 4, 4, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    fine = byte(f"fine.{step}", 2, IMAGES, SIZE, SIZE, 3)
    x = (4 * tint + 2 * square + 2 * fine) // 8
    return x.reshape(2 * IMAGES, SIZE, SIZE, 3).permute(0, 3, 1, 2).to(dtype) / 255.0


def forward(p, buffers, x):
    def norm(name, x):
        return F.batch_norm(
            x, buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"],
            p[f"{name}.weight"], p[f"{name}.bias"], training=True, momentum=0.1, eps=1e-5,
        )

    x = F.relu(norm("bn1", F.conv2d(x, p["conv1.weight"], padding=1)))
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, p[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.relu(norm(f"{name}.bn1", y))
            y = norm(f"{name}.bn2", F.conv2d(y, p[f"{name}.conv2.weight"], padding=1))
            if f"{name}.downsample.0.weight" in p:
                x = norm(f"{name}.downsample.1", F.conv2d(x, p[f"{name}.downsample.0.weight"], stride=stride))
            x = F.relu(y + x)
    h = x.mean((2, 3))
    z = F.relu(F.linear(h, p["head.0.linear.weight"], p["head.0.linear.bias"]))
    z = F.linear(z, p["head.1.linear.weight"], p["head.1.linear.bias"])
    return F.normalize(z)


def nt_xent(z, temperature=0.5):
    count = len(z)
    s = z @ z.T / temperature
    s = s.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(s, (torch.arange(count) + count // 2) % count)


def lars(p, momentum, rate):
    with torch.no_grad():
        for name, w in p.items():
            g = w.grad
            if w.ndim > 1:
                g = g + 1e-4 * w
                g = 0.001 * w.norm() / g.norm() * g
            momentum[name] = 0.9 * momentum.get(name, 0.0) + rate * g
            w -= momentum[name]
            w.grad = None


def run(dtype):
    p, buffers = make_parameters(dtype)
    momentum, losses = {}, []
    for step, rate in enumerate(RATES):
        loss = nt_xent(forward(p, buffers, views(step, dtype)))
        loss.backward()
        losses.append(loss.item())
        print(dtype, step, losses[-1], file=sys.stderr, flush=True)
        lars(p, momentum, rate)
    values = {**p, **buffers}
    # Back to the engine's order.
    flat = {name: values[name].detach().permute(0, 2, 3, 1) if values[name].ndim == 4 else values[name] for name in KEPT}
    return losses, {name: value.reshape(-1)[:8].tolist() for name, value in flat.items()}


torch.set_num_threads(2)
double, after = run(torch.float64)
single, _ = run(torch.float32)
differences = [abs(a - b) / a for a, b in zip(double, single)]
print("relative differences by rounding:", differences, file=sys.stderr)
result = {
    "made_by": f"tools/golden/ten_steps.py, PyTorch {torch.__version__}",
    "rates": RATES,
    "losses": double,
    "losses_in_32_bits": single,
    "parameters_after": after,
}
json.dump(result, sys.stdout, indent=1)
print()
