"""torchvision's ResNet-18 with the CIFAR stem (3 x 3, stride 1, no pooling), and weights and images from formulas.

Weights and views come from a formula that both sides implement (uniform.py), so that only results are stored. Its index i
runs over the values in the engine's order: (out, h, w, in) for a convolution's weights, (out, in) for a dense
layer's, (view, row, column, channel) for views.

    convolution, dense weights   uniform(name) sqrt(6 / fan_in)
    gamma (x.weight of a norm)   1 + 0.1 uniform(name)
    beta, dense bias             0.1 uniform(name)
    views of step t              bytes (4 tint + 2 square + 2 fine) // 8, over 255: byte(name) is (uniform(name) + 1) 128,
                                 rounded down; "tint.t" has one for each image and channel, "square.t" for each image,
                                 8 x 8 pixels and channel, "fine.t" for each view, pixel and channel; view v is of image v % 16
"""

import numpy as np
import torch
import torch.nn.functional as F

from uniform import uniform

IMAGES, SIZE = 16, 32


def make_parameters(dtype, base=64, classes=0, head_norms=False):
    """Makes parameters of 32-bit precision, whatever `dtype` they are then used in: those of the encoder, and of a projection head (with
    BatchNorm in place of biases if `head_norms`) or, with `classes`, of its first layer and a classifier."""
    p, norms = {}, []

    def add(name, value):
        p[name] = value.float().to(dtype).contiguous().requires_grad_()

    def conv(name, out, into, side):
        scale = np.float32(np.sqrt(6.0 / (into * side * side)))
        add(name, (uniform(name, out, side, side, into).float() * scale).permute(0, 3, 1, 2))

    def norm(name, channels, bias=True):
        norms.append(name)
        add(f"{name}.weight", 1.0 + np.float32(0.1) * uniform(f"{name}.weight", channels).float())
        if bias:
            add(f"{name}.bias", np.float32(0.1) * uniform(f"{name}.bias", channels).float())

    def dense(name, out, into, bias=True):
        scale = np.float32(np.sqrt(6.0 / into))
        add(f"{name}.weight", uniform(f"{name}.weight", out, into).float() * scale)
        if bias:
            add(f"{name}.bias", np.float32(0.1) * uniform(f"{name}.bias", out).float())

    conv("conv1.weight", base, 3, 3)
    norm("bn1", base)
    into = base
    for stage, width in enumerate([base, 2 * base, 4 * base, 8 * base], 1):
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
    dense("head.0.linear", into, into, bias=not head_norms)
    if classes:
        dense("fc", classes, into)
    else:
        dense("head.1.linear", 128, into, bias=not head_norms)
    if head_norms:
        norm("head.0.bn", into)
        norm("head.1.bn", 128, bias=False)
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


def batch_norm(p, buffers, name, x):
    return F.batch_norm(
        x, buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"],
        p[f"{name}.weight"], p.get(f"{name}.bias"), training=True, momentum=0.1, eps=1e-5,
    )


def encode(p, buffers, x):
    def norm(name, x):
        return batch_norm(p, buffers, name, x)

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
    return x.mean((2, 3))


def first_head_layer(p, h):
    return F.relu(F.linear(h, p["head.0.linear.weight"], p["head.0.linear.bias"]))


def first_values(values, names):
    """The first eight values of each, in the engine's order."""
    flat = {name: values[name].detach().permute(0, 2, 3, 1) if values[name].ndim == 4 else values[name] for name in names}
    return {name: value.reshape(-1)[:8].tolist() for name, value in flat.items()}
