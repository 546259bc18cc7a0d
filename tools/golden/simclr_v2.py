"""Golden values of a ResNet-D and of SimCLR v2's network: h of a batch and gradients, from PyTorch in 64-bit floats.

    python tools/golden/simclr_v2.py > crates/nn/tests/golden/simclr_v2.json

The networks are written down here as the papers and the official code (google-research/simclr, tf2/resnet.py) have them, layer by layer:
arXiv:1812.01187 for the stem and the shortcuts, arXiv:1903.06586 in the form of arXiv:2006.10029 for selective kernels. Weights and images come
from formulas, as in resnet18.py: uniform(name) sqrt(6 / fan_in) for weights, 1 + 0.1 uniform(name) for gammas (0.2 instead of 1 for bn3, so that
branches begin small and rounding errors stay small through fifty layers), 0.1 uniform(name) for betas, (uniform("images") + 1) / 2 for images
(N, S, S, 3). Gradients are those of the sum of h uniform("dh").
"""

import json

import torch
import torch.nn.functional as F

from uniform import uniform

BLOCKS = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}


class Network:
    """If `official`, pools pad as TensorFlow's SAME and the official code do, else as timm does."""

    def __init__(self, depth, base, ratio, official):
        self.depth, self.base, self.ratio, self.official = depth, base, ratio, official
        self.p = {}

    def weight(self, name, *shape):
        """Makes a weight at its first use, (out, height, width, in) or (out, in); returns (out, in, height, width) for PyTorch."""
        if name not in self.p:
            fan_in = torch.tensor(shape[1:]).prod()
            scale = (6.0 / fan_in.double()).sqrt().float()
            self.p[name] = (uniform(name, *shape).float() * scale).double().requires_grad_()
        w = self.p[name]
        return w.permute(0, 3, 1, 2) if w.ndim == 4 else w

    def conv(self, name, x, out, side, stride=1):
        w = self.weight(f"{name}.weight", out, side, side, x.shape[1])
        return F.conv2d(x, w, stride=stride, padding=side // 2)

    def norm(self, name, x):
        for part, centre in [("weight", 0.2 if name.endswith("bn3") else 1.0), ("bias", 0.0)]:
            full = f"{name}.{part}"
            if full not in self.p:
                self.p[full] = (centre + 0.1 * uniform(full, x.shape[1])).float().double().requires_grad_()
        return F.batch_norm(x, None, None, self.p[f"{name}.weight"], self.p[f"{name}.bias"], training=True, eps=1e-5)

    def stem(self, x):
        x = F.relu(self.norm("conv1.1", self.conv("conv1.0", x, self.base // 2, 3, 2)))
        x = F.relu(self.norm("conv1.4", self.conv("conv1.3", x, self.base // 2, 3)))
        x = F.relu(self.norm("bn1", self.conv("conv1.6", x, self.base, 3)))
        if not self.official:
            return F.max_pool2d(x, 3, 2, 1)
        missing = 1 if x.shape[2] % 2 == 0 else 2  # SAME padding of windows of 3 with stride 2.
        before, after = missing // 2, missing - missing // 2
        return F.max_pool2d(F.pad(x, (before, after, before, after), value=-torch.inf), 3, 2)

    def shortcut(self, name, x, out, stride):
        if stride == 2 and self.official:
            x = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2)
        elif stride == 2:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        elif self.official:
            pad = (0, 1, 0, 1)
            x = F.avg_pool2d(F.pad(x, pad), 2, 1) / F.avg_pool2d(F.pad(torch.ones_like(x), pad), 2, 1)
        return self.norm(f"{name}.downsample.2", self.conv(f"{name}.downsample.1", x, out, 1))

    def selective(self, name, x, channels, stride):
        x = F.relu(self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", x, 2 * channels, 3, stride)))
        streams = torch.stack(x.chunk(2, 1))
        few = max(int(channels * self.ratio), 32)
        gate = streams.sum(0).mean((2, 3))
        gate = F.linear(gate, self.weight(f"{name}.attn.fc_reduce.weight", few, channels))
        gate = F.relu(self.norm(f"{name}.attn.bn", gate))
        gate = F.linear(gate, self.weight(f"{name}.attn.fc_select.weight", 2 * channels, few))
        mixing = torch.stack(gate.chunk(2, 1)).softmax(0)
        return (streams * mixing[..., None, None]).sum(0)

    def block(self, name, x, channels, stride, first):
        bottleneck = self.depth >= 50
        out = 4 * channels if bottleneck else channels
        project = first and (self.official or stride > 1 or x.shape[1] != out)
        shortcut = self.shortcut(name, x, out, stride) if project else x
        if not bottleneck:
            x = F.relu(self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, channels, 3, stride)))
            return F.relu(self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", x, channels, 3)) + shortcut)
        x = F.relu(self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, channels, 1)))
        if self.ratio:
            x = self.selective(name, x, channels, stride)
        else:
            x = F.relu(self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", x, channels, 3, stride)))
        return F.relu(self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", x, out, 1)) + shortcut)

    def encode(self, x):
        x = self.stem(x)
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                x = self.block(f"layer{stage + 1}.{index}", x, self.base << stage, stride, index == 0)
        return x.mean((2, 3))


def describe(x):
    x = x.detach().reshape(-1)
    values = x[:: -(-len(x) // 5)].tolist()
    return {"norm": float(x.norm()), "digest": float((x * uniform("digest", len(x))).sum()), "values": values}


def network(depth, base, ratio, official, batch, size):
    net = Network(depth, base, ratio, official)
    images = ((uniform("images", batch, size, size, 3) + 1.0) / 2.0).float().double()
    h = net.encode(images.permute(0, 3, 1, 2))
    (h * uniform("dh", *h.shape)).sum().backward()
    settings = {"depth": depth, "base": base, "ratio": ratio, "official": official, "batch": batch, "size": size}
    results = {"h": describe(h)}
    kept = ("conv1.0.weight", "bn1.bias", "layer1.0.downsample.1.weight", "layer2.0.conv2.weight", "layer2.0.downsample.1.weight")
    results |= {name: describe(value.grad) for name, value in net.p.items() if name in kept or name.startswith("layer2.0.attn")}
    return {"settings": settings, "parameters": len(net.p), "results": results}


def main():
    networks = [network(18, 8, 0.0, False, 6, 38), network(50, 4, 0.0625, True, 6, 37), network(50, 8, 1.0, True, 5, 64)]
    print(json.dumps({"made_by": f"tools/golden/simclr_v2.py, PyTorch {torch.__version__}", "networks": networks}))


torch.set_num_threads(1)
main()
