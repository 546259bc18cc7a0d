"""Ten steps of SimCLR with a ResNet-18, in PyTorch: the losses that crates/train/tests/ten_steps.rs must reach.

    python tools/golden/ten_steps.py biases > crates/train/tests/golden/ten_steps.json
    python tools/golden/ten_steps.py norms > crates/train/tests/golden/ten_steps_norms.json

Weights and views come from the formulas of resnet18.py, so that only the results are stored.

The network is torchvision's ResNet-18 with the CIFAR stem (3 x 3, stride 1, no pooling); the head is Linear(512, 512), ReLU,
Linear(512, 128), with biases or with a BatchNorm after each (the last without beta). NT-Xent with tau = 0.5 on normalised z, positives i and i + 16 modulo 32. LARS with momentum 0.9, trust
coefficient 0.001, decay 1e-4, neither adaptation nor decay for norms and biases, on the first ten steps of a warm-up.

The losses in 64-bit floats are the reference. Those in 32-bit floats show the effect of rounding alone. At rates of 0.5, or with BatchNorm in the
head of 0.01 to 0.1, that effect triples at each step, and no two implementations stay together for ten steps.
"""

import json
import sys

import torch
import torch.nn.functional as F

from resnet18 import batch_norm, encode, first_head_layer, first_values, make_parameters, views

NORMS = {"biases": False, "norms": True}[sys.argv[1]]
RATES = [round((0.0005 if NORMS else 0.01) * (step + 1), 4) for step in range(10)]
KEPT = [
    "conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight",
    "layer4.1.bn2.bias", "head.0.linear.weight", *(["head.0.bn.bias", "head.1.bn.weight"] if NORMS else ["head.1.linear.bias"]),
    "bn1.running_mean", "layer4.1.bn2.running_mean", "layer4.1.bn2.running_var",
]


def forward(p, buffers, x):
    h = encode(p, buffers, x)
    if NORMS:
        z = F.relu(batch_norm(p, buffers, "head.0.bn", F.linear(h, p["head.0.linear.weight"])))
        return F.normalize(batch_norm(p, buffers, "head.1.bn", F.linear(z, p["head.1.linear.weight"])))
    return F.normalize(F.linear(first_head_layer(p, h), p["head.1.linear.weight"], p["head.1.linear.bias"]))


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
    p, buffers = make_parameters(dtype, head_norms=NORMS)
    momentum, losses = {}, []
    for step, rate in enumerate(RATES):
        loss = nt_xent(forward(p, buffers, views(step, dtype)))
        loss.backward()
        losses.append(loss.item())
        print(dtype, step, losses[-1], file=sys.stderr, flush=True)
        lars(p, momentum, rate)
    return losses, first_values({**p, **buffers}, KEPT)


torch.set_num_threads(2)
double, after = run(torch.float64)
single, _ = run(torch.float32)
differences = [abs(a - b) / a for a, b in zip(double, single)]
print("relative differences by rounding:", differences, file=sys.stderr)
result = {
    "made_by": f"tools/golden/ten_steps.py {sys.argv[1]}, PyTorch {torch.__version__}",
    "rates": RATES,
    "losses": double,
    "losses_in_32_bits": single,
    "parameters_after": after,
}
json.dump(result, sys.stdout, indent=1)
print()
