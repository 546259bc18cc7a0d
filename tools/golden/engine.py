"""Golden values of the engine's operators from PyTorch: forward and backward, computed in 64-bit floats.

    python tools/golden/engine.py > crates/engine/tests/golden/operators.json

Inputs come from uniform.py under the name CASE.INPUT, in the engine's layout: images (N, H, W, C), convolution weights (out, h, w,
in), dense weights (out, in). A result r is kept as its norm, its digest (the sum of r[i] uniform("digest", i)), and up to 24 evenly
spaced values: any wrong value changes the digest.
"""

import json
import sys

import torch
import torch.nn.functional as F

from uniform import uniform

cases = []


def images(x):
    return x.permute(0, 3, 1, 2)


def back(x):
    return x.permute(0, 2, 3, 1)


def describe(x):
    x = x.detach().reshape(-1)
    step = -(-len(x) // 24)
    return {
        "len": len(x),
        "norm": float(x.norm()),
        "digest": float((x * uniform("digest", len(x))).sum()),
        "step": step,
        "values": [float(f"{v:.9g}") for v in x[::step].tolist()],
    }


def case(op, name, inputs, settings, compute):
    """Runs `compute` on the inputs (all in the engine's layout) and records the output and every input's gradient."""
    leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    extra = {}
    y = compute(leaves, extra)
    dy = uniform(f"{name}.dy", *y.shape)
    (y * dy).sum().backward()
    results = {"y": describe(y)}
    results.update({f"d{key}": describe(leaf.grad) for key, leaf in leaves.items() if leaf.grad is not None})
    results.update({key: describe(value) for key, value in extra.items()})
    shapes = {key: list(value.shape) for key, value in inputs.items()}
    cases.append({"op": op, "name": name, "inputs": shapes, "settings": settings, "results": results})


def named(name, **shapes):
    return {key: uniform(f"{name}.{key}", *shape) for key, shape in shapes.items()}


def conv2d(name, batch, height, width, channels, out, side, stride, padding):
    inputs = named(name, x=(batch, height, width, channels), w=(out, side, side, channels))
    case(
        "conv2d", name, inputs, {"stride": stride, "padding": padding},
        lambda p, _: back(F.conv2d(images(p["x"]), images(p["w"]), stride=stride, padding=padding)),
    )


def batch_norm(name, shape, residual=False, relu=False, beta=True, mode="train"):
    channels = shape[-1]
    inputs = named(name, x=shape, gamma=(channels,), mean=(channels,), var=(channels,))
    inputs["gamma"] = 1.0 + 0.5 * inputs["gamma"]
    inputs["var"] = 1.5 + inputs["var"]
    if beta:
        inputs |= named(name, beta=(channels,))
    if residual:
        inputs |= named(name, residual=shape)

    def compute(p, extra):
        mean, var = p["mean"].detach().clone(), p["var"].detach().clone()
        rows = p["x"].reshape(-1, channels)
        y = F.batch_norm(rows, mean, var, p["gamma"], p.get("beta"), mode == "train", momentum=0.1, eps=1e-5)
        y = y.reshape(shape)
        if residual:
            y = y + p["residual"]
        if relu:
            y = F.relu(y)
        extra |= {"running_mean": mean, "running_var": var}
        return y

    case("batch_norm", name, inputs, {"relu": relu, "mode": mode}, compute)


def max_pool(name, shape, side, stride, padding, levels=None):
    inputs = named(name, x=shape)
    if levels:  # Few distinct values make ties, which the first value wins.
        inputs["x"] = (inputs["x"] * levels).floor() / levels
    case(
        "max_pool", name, inputs, {"side": side, "stride": stride, "padding": padding, "levels": levels or 0},
        lambda p, _: back(F.max_pool2d(images(p["x"]), side, stride, padding)),
    )


def avg_pool(name, shape, stride, zeros):
    def compute(p, _):
        x = F.pad(images(p["x"]), (0, 1, 0, 1))
        y = F.avg_pool2d(x, 2, stride)
        if not zeros:  # The mean over the part of a window inside the image; the average of ones is that part's share of the window.
            y = y / F.avg_pool2d(F.pad(torch.ones_like(images(p["x"])), (0, 1, 0, 1)), 2, stride)
        return back(y)

    case("avg_pool", name, named(name, x=shape), {"stride": stride, "zeros": zeros}, compute)


def streams(x):
    return torch.stack(x.chunk(2, -1))


def select(name, shape):
    batch, height, width, channels = shape
    inputs = named(name, x=(batch, height, width, 2 * channels), logits=(batch, 2 * channels))

    inputs["logits"] = 4.0 * inputs["logits"]
    case("select", name, inputs, {}, lambda p, _: (streams(p["x"]) * streams(p["logits"]).softmax(0)[:, :, None, None]).sum(0))


def similarities(p, images, temperature, normalize, extra):
    """Returns all similarities, -infinity for the anchor itself, and the indices of positives; records entropy and contrastive accuracy."""
    z = F.normalize(p["z"]) if normalize else p["z"]
    count = len(z)
    s = (z @ z.T / temperature).masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    positive = (torch.arange(count) + images) % count
    log_p = F.log_softmax(s, 1)
    weighted = torch.where(torch.isinf(log_p), 0.0, log_p.exp() * log_p)
    extra["entropy"] = -weighted.sum(1).mean().reshape(1)
    extra["accuracy"] = (s.argmax(1) == positive).double().mean().reshape(1)
    return s, positive


def nt_xent(name, images, dim, temperature, normalize):
    def compute(p, extra):
        s, positive = similarities(p, images, temperature, normalize, extra)
        return F.cross_entropy(s, positive).reshape(1)

    settings = {"temperature": temperature, "normalize": normalize}
    case("nt_xent", name, named(name, z=(2 * images, dim)), settings, compute)


def pair_loss(op, name, images, dim, temperature, semi_hard, margin=0.0, normalize=True):
    def compute(p, extra):
        s, positive = similarities(p, images, temperature, normalize, extra)
        drawn = s.gather(1, positive[:, None])
        negative = ~torch.isinf(s).scatter(1, positive[:, None], True)
        s = torch.where(negative, s, 0.0)
        if op == "nt_logistic":
            triples = F.softplus(-drawn) + F.softplus(s)
        else:
            triples = F.relu(temperature * (s - drawn) + margin)
        if not semi_hard:
            return ((triples * negative).sum(1) / negative.sum(1)).mean().reshape(1)
        below = s.masked_fill(~negative | (s >= drawn), -torch.inf)
        least = s.masked_fill(~negative, torch.inf).argmin(1)
        mined = torch.where(torch.isinf(below).all(1), least, below.argmax(1))
        return triples.gather(1, mined[:, None]).mean().reshape(1)

    settings = {"temperature": temperature, "normalize": normalize, "semi_hard": semi_hard, "margin": margin}
    case(op, name, named(name, z=(2 * images, dim)), settings, compute)


def main():
    # name, batch, height, width, channels, out, side, stride, padding
    conv2d("conv_3x3", 2, 8, 8, 16, 24, 3, 1, 1)
    conv2d("conv_3x3_stride_2", 2, 9, 9, 16, 32, 3, 2, 1)
    conv2d("conv_3x3_even_stride_2", 3, 8, 8, 64, 128, 3, 2, 1)
    conv2d("conv_1x1", 2, 7, 7, 64, 16, 1, 1, 0)
    conv2d("conv_1x1_stride_2", 3, 8, 8, 16, 32, 1, 2, 0)
    conv2d("conv_7x7_stem", 2, 20, 23, 3, 16, 7, 2, 3)
    conv2d("conv_3x3_stem", 3, 8, 8, 3, 64, 3, 1, 1)
    conv2d("conv_5x5_stride_3", 1, 11, 7, 1, 1, 5, 3, 1)
    conv2d("conv_no_padding", 1, 7, 7, 5, 7, 3, 1, 0)
    conv2d("conv_stage_1", 2, 32, 32, 64, 64, 3, 1, 1)
    conv2d("conv_stage_4", 5, 4, 4, 256, 256, 3, 1, 1)

    batch_norm("norm", (3, 7, 7, 5))
    batch_norm("norm_wide", (2, 3, 4, 300))
    batch_norm("norm_rows", (6, 16))
    batch_norm("norm_relu", (3, 7, 7, 16), relu=True)
    batch_norm("norm_residual", (3, 5, 4, 16), residual=True)
    batch_norm("norm_residual_relu", (3, 8, 8, 16), residual=True, relu=True)
    batch_norm("norm_without_beta", (33, 16), beta=False)
    batch_norm("norm_one_channel", (1, 7, 7, 1))
    batch_norm("norm_frozen", (3, 7, 7, 16), residual=True, relu=True, mode="frozen")

    max_pool("pool_stem", (2, 9, 8, 16), 3, 2, 1)
    max_pool("pool_halves", (3, 7, 7, 5), 2, 2, 0)
    max_pool("pool_ties", (2, 8, 8, 3), 3, 2, 1, levels=2)

    avg_pool("average_halves", (2, 8, 6, 16), 2, True)
    avg_pool("average_halves_odd", (2, 7, 5, 3), 2, True)
    avg_pool("average_halves_inside", (3, 5, 7, 4), 2, False)
    avg_pool("average_same", (2, 4, 7, 5), 1, False)

    for name, shape in [("average", (3, 4, 4, 20)), ("average_7x7", (2, 7, 7, 33))]:
        case("global_avg_pool", name, named(name, x=shape), {}, lambda p, _: p["x"].mean((1, 2)))
    for name, shape in [("streams", (3, 4, 5, 16)), ("streams_narrow", (2, 7, 7, 3))]:
        batch, height, width, channels = shape
        fused = f"{name}_fused"
        inputs = named(fused, x=(batch, height, width, 2 * channels))
        case("fuse", fused, inputs, {}, lambda p, _: streams(p["x"]).sum(0).mean((1, 2)))
        select(name, shape)
    for name, rows, into, out in [("dense", 6, 16, 5), ("dense_head", 32, 512, 128), ("dense_one", 1, 1, 1)]:
        inputs = named(name, x=(rows, into), w=(out, into), bias=(out,))
        case("linear", name, inputs, {}, lambda p, _: F.linear(p["x"], p["w"], p["bias"]))
        name = f"{name}_without_bias"
        inputs = named(name, x=(rows, into), w=(out, into))
        case("linear", name, inputs, {}, lambda p, _: F.linear(p["x"], p["w"]))
    case("relu", "relu", named("relu", x=(3, 5, 5, 7)), {}, lambda p, _: F.relu(p["x"]))
    case("add", "add", named("add", a=(3, 5, 7), b=(3, 5, 7)), {}, lambda p, _: p["a"] + p["b"])
    for name, shape in [("unit", (9, 128)), ("unit_narrow", (5, 3))]:
        case("l2_normalize", name, named(name, x=shape), {}, lambda p, _: F.normalize(p["x"]))

    nt_xent("loss", 16, 32, 0.5, True)
    nt_xent("loss_sharp", 150, 16, 0.1, True)
    nt_xent("loss_of_two", 2, 3, 0.5, True)
    nt_xent("loss_not_normalized", 9, 8, 1.0, False)
    for name, semi_hard in [("all", False), ("mined", True)]:
        pair_loss("nt_logistic", f"logistic_{name}", 16, 32, 0.5, semi_hard)
        pair_loss("nt_logistic", f"logistic_{name}_sharp", 150, 16, 0.1, semi_hard)
        pair_loss("nt_logistic", f"logistic_{name}_of_two", 2, 7, 0.5, semi_hard, normalize=False)
        pair_loss("margin_triplet", f"triplet_{name}", 16, 128, 0.1, semi_hard, 0.4)
        pair_loss("margin_triplet", f"triplet_{name}_many", 150, 16, 0.5, semi_hard, 0.8)
        pair_loss("margin_triplet", f"triplet_{name}_of_three", 3, 1, 1.0, semi_hard, 0.1, normalize=False)

    for name, rows, classes in [("classes", 12, 10), ("two_classes", 5, 2)]:
        labels = [(7 * i + 3) % classes for i in range(rows)]
        case(
            "softmax_cross_entropy", name, {"logits": 4.0 * uniform(f"{name}.logits", rows, classes)}, {"labels": labels},
            lambda p, _: F.cross_entropy(p["logits"], torch.tensor(labels)).reshape(1),
        )

    head = f"tools/golden/engine.py, PyTorch {torch.__version__}"
    print(f'{{"made_by": {json.dumps(head)}, "cases": [')
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
    print("]}")


torch.set_num_threads(1)
main()
