#!/usr/bin/env python3
"""Asks a real cuDNN, on a machine without a GPU, which engines it has for the convolutions of a network.

    tools/cudnn_engines.py LIBCUDNN [--network resnet18|resnet50] [--views N] [--type bf16|f16] [--fused]

LIBCUDNN is a libcudnn.so.9 of 9.8 or later, such as that of the wheel nvidia-cudnn-cu13; its folder, and that of cuBLASLt
(nvidia-cublas), must be in LD_LIBRARY_PATH. The device is described to cuDNN in JSON (an H200 below), as its ahead-of-time
compilation expects. For each shape and pass, prints how many proposals of the heuristics become a plan, how many plans each engine
has, and the workspaces of the first five. Engines that cuDNN compiles at run time need a driver: they count as proposals only.

--fused also asks for graphs that fuse a convolution with the operations around it: sums of channels after it, scale, shift and ReLU
before it, and these before a weight gradient.
"""

import argparse
import collections
import ctypes
import json

H200 = dict(
    deviceName="NVIDIA H200", deviceVer=900, driverVer=13000, cudaDeviceId=0, pciDeviceId=0, isTccDriver=0,
    multiProcessorCount=132, smCountOrigin=0, warpSize=32, maxThreadsPerBlock=1024, maxThreadsPerSM=2048, maxCtasPerSM=32,
    maxGridSize=[2147483647, 65535, 65535], maxBlockSize=[1024, 1024, 64], regsPerBlock=65536, maxRegistersPerSM=65536,
    maxSharedMemoryPerBlock=49152, maxSharedMemoryPerBlockOptin=232448, reservedSharedMemoryPerBlock=1024,
    oversizedSharedMemoryPerBlock=0, supportCoopLaunch=1, totalGlobalMem=150_000_000_000, l2CacheSize=62_914_560,
    smClockRateKHz=1_980_000, memClockRateKHz=3_201_000,
)

# cuDNN's backend API: descriptors, types of attributes, and attributes, by the numbers of its headers.
POINTWISE, CONVOLUTION, ENGINE, CONFIG, HEURISTICS, PLAN = 0, 1, 2, 3, 4, 5
FORWARD, BACKWARD_FILTER, BACKWARD_DATA, OP_POINTWISE, GEN_STATS, GRAPH, TENSOR, DEVICE = 10, 11, 12, 13, 14, 15, 17, 38
DATA_TYPE, BOOLEAN, INT64, FLOAT, CONVOLUTION_MODE, HEUR_MODE = 1, 2, 3, 4, 7, 8
POINTWISE_MODE, DESCRIPTOR, GENSTATS_MODE, CHAR = 14, 15, 16, 24
TYPES = dict(f32=0, f16=2, bf16=9)
ADD, MUL, RELU = 0, 1, 100
INSTANT, FALLBACK = 0, 2
# The most values that a tensor may have; larger batches are computed in pieces.
MOST_VALUES = 2**31 - 1


class Refused(Exception):
    pass


class Cudnn:
    def __init__(self, path):
        self.library = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
        self.device = self.descriptor(DEVICE)
        self.set(self.device, 2702, CHAR, json.dumps(H200).encode())
        self.finish(self.device)
        self.tensors = 0

    def check(self, status):
        if status != 0:
            words = ctypes.create_string_buffer(1000)
            self.library.cudnnGetLastErrorString(words, 1000)
            raise Refused(f"{status} {words.value.decode(errors='replace')}")

    def descriptor(self, kind):
        made = ctypes.c_void_p()
        self.check(self.library.cudnnBackendCreateDescriptor(kind, ctypes.byref(made)))
        return made

    def set(self, of, name, kind, values):
        if kind == CHAR:
            array, count = ctypes.create_string_buffer(values), len(values)
        else:
            values = values if isinstance(values, list) else [values]
            c_type = {INT64: ctypes.c_int64, FLOAT: ctypes.c_float, BOOLEAN: ctypes.c_bool, DESCRIPTOR: ctypes.c_void_p}
            array, count = (c_type.get(kind, ctypes.c_int32) * len(values))(*values), len(values)
        self.check(self.library.cudnnBackendSetAttribute(of, name, kind, ctypes.c_int64(count), array))

    def finish(self, descriptor):
        self.check(self.library.cudnnBackendFinalize(descriptor))
        return descriptor

    def make(self, kind, *attributes):
        made = self.descriptor(kind)
        for name, of, values in attributes:
            self.set(made, name, of, values)
        return self.finish(made)

    def number(self, of, name):
        value, count = (ctypes.c_int64 * 1)(), ctypes.c_int64()
        self.check(self.library.cudnnBackendGetAttribute(of, name, INT64, ctypes.c_int64(1), ctypes.byref(count), value))
        return value[0]

    def parts(self, of, name, kind, most):
        made = [self.descriptor(kind) for _ in range(most)]
        array, count = (ctypes.c_void_p * most)(*[part.value for part in made]), ctypes.c_int64()
        self.check(
            self.library.cudnnBackendGetAttribute(of, name, DESCRIPTOR, ctypes.c_int64(most), ctypes.byref(count), array)
        )
        return made[: count.value]

    def tensor(self, shape, of, virtual=False):
        """Channels last; the shape is (N, C, H, W)."""
        self.tensors += 1
        n, c, h, w = shape
        attributes = [
            (906, INT64, self.tensors), (901, DATA_TYPE, TYPES[of]), (902, INT64, [n, c, h, w]),
            (903, INT64, [h * w * c, 1, w * c, c]), (900, INT64, 16),
        ]
        return self.make(TENSOR, *attributes, *([(907, BOOLEAN, True)] if virtual else []))

    def convolution(self, kind, padding, stride, x, w, y, adds=False):
        of = self.make(
            CONVOLUTION, (100, DATA_TYPE, 0), (101, CONVOLUTION_MODE, 1), (102, INT64, [1, 1]), (103, INT64, [stride] * 2),
            (105, INT64, [padding] * 2), (104, INT64, [padding] * 2), (106, INT64, 2),
        )
        first = {FORWARD: 700, BACKWARD_DATA: 706, BACKWARD_FILTER: 712}[kind]
        # The header's order: weights, x, y. Weights are the result of the weight gradient, x that of the data gradient.
        return self.make(
            kind, (first, FLOAT, 1.0), (first + 1, FLOAT, 1.0 if adds else 0.0), (first + 2, DESCRIPTOR, of.value),
            (first + 3, DESCRIPTOR, w.value), (first + 4, DESCRIPTOR, x.value), (first + 5, DESCRIPTOR, y.value),
        )

    def pointwise(self, mode, x, other, y):
        of = self.make(POINTWISE, (0, POINTWISE_MODE, mode), (1, DATA_TYPE, 0))
        operands = [(751, DESCRIPTOR, x.value), (753, DESCRIPTOR, y.value)]
        if other is not None:
            operands.append((752, DESCRIPTOR, other.value))
        return self.make(OP_POINTWISE, (750, DESCRIPTOR, of.value), *operands)

    def sums(self, y, channels):
        sum_, squares = (self.tensor((1, channels, 1, 1), "f32") for _ in range(2))
        return self.make(
            GEN_STATS, (770, GENSTATS_MODE, 0), (771, DATA_TYPE, 0), (772, DESCRIPTOR, y.value), (773, DESCRIPTOR, sum_.value),
            (774, DESCRIPTOR, squares.value),
        )

    def plans(self, operations):
        """Returns how many engines are proposed, and the engine and workspace of each proposal that becomes a plan."""
        graph = self.make(GRAPH, (801, DESCRIPTOR, [operation.value for operation in operations]))
        proposals, plans = 0, []
        for mode in (INSTANT, FALLBACK):
            heuristics = self.make(
                HEURISTICS, (201, DESCRIPTOR, graph.value), (200, HEUR_MODE, mode), (204, DESCRIPTOR, self.device.value)
            )
            for config in self.parts(heuristics, 202, CONFIG, 128):
                proposals += 1
                engine = self.number(self.parts(config, 300, ENGINE, 1)[0], 1301)
                try:
                    plan = self.make(PLAN, (401, DESCRIPTOR, config.value), (407, DESCRIPTOR, self.device.value))
                except Refused:
                    continue
                plans.append((engine, self.number(plan, 402)))
        return proposals, plans


def layers(network):
    """(channels in, channels out, kernel, stride, padding, side) of each convolution, each shape once; stems in their packed form."""
    found, channels = [], 64
    if network == "resnet18":
        found.append((8, 64, 3, 1, 1, 32))
        side, stages, bottleneck = 32, [(64, 2), (128, 2), (256, 2), (512, 2)], False
    else:
        found.append((16, 64, 4, 1, 0, 115))
        side, stages, bottleneck = 56, [(64, 3), (128, 4), (256, 6), (512, 3)], True
    for stage, (width, blocks) in enumerate(stages):
        outputs = 4 * width if bottleneck else width
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                found += [(channels, width, 1, 1, 0, side), (width, width, 3, stride, 1, side)]
            else:
                found.append((channels, width, 3, stride, 1, side))
            if block == 0 and (stride > 1 or channels != outputs):
                found.append((channels, outputs, 1, stride, 0, side))
            side //= stride
            found.append((width, outputs, 1, 1, 0, side) if bottleneck else (width, width, 3, 1, 1, side))
            channels = outputs
    return list(dict.fromkeys(found))


def graphs(cudnn, layer, views, of, fused):
    """Yields the passes of a layer: a name, and a function that makes its operations."""
    inputs, outputs, kernel, stride, padding, side = layer
    after = (side + 2 * padding - kernel) // stride + 1
    most = MOST_VALUES // max(inputs * side * side, outputs * after * after)
    views = min(views, most - most % 8)
    x, y = cudnn.tensor((views, inputs, side, side), of), cudnn.tensor((views, outputs, after, after), of)
    w = cudnn.tensor((outputs, inputs, kernel, kernel), of)
    conv = lambda kind, x=x, adds=False: cudnn.convolution(kind, padding, stride, x, w, y, adds)

    def activated():
        a, b, r = (cudnn.tensor((views, inputs, side, side), of, virtual=True) for _ in range(3))
        scale, shift = (cudnn.tensor((1, inputs, 1, 1), of) for _ in range(2))
        steps = [cudnn.pointwise(MUL, x, scale, a), cudnn.pointwise(ADD, a, shift, b), cudnn.pointwise(RELU, b, None, r)]
        return steps, r

    yield "forward", lambda: [conv(FORWARD)]
    if inputs > 16:
        yield "dx", lambda: [conv(BACKWARD_DATA)]
        yield "dx, added", lambda: [conv(BACKWARD_DATA, adds=True)]
    yield "dw", lambda: [conv(BACKWARD_FILTER)]
    if fused:
        yield "forward, sums", lambda: [conv(FORWARD), cudnn.sums(y, outputs)]

        def before(kind, sums):
            steps, r = activated()
            return [*steps, conv(kind, r), *([cudnn.sums(y, outputs)] if sums else [])]

        yield "BatchNorm, ReLU, forward", lambda: before(FORWARD, False)
        yield "BatchNorm, ReLU, forward, sums", lambda: before(FORWARD, True)
        yield "BatchNorm, ReLU, dw", lambda: before(BACKWARD_FILTER, False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", metavar="LIBCUDNN")
    parser.add_argument("--network", choices=["resnet18", "resnet50"], default="resnet18")
    parser.add_argument("--views", type=int, default=4096)
    parser.add_argument("--type", choices=["bf16", "f16"], default="bf16")
    parser.add_argument("--fused", action="store_true")
    options = parser.parse_args()
    cudnn = Cudnn(options.library)
    print(f"cuDNN {cudnn.library.cudnnGetVersion()}, {H200['deviceName']}, {options.type}, {options.views} views")
    for layer in layers(options.network):
        inputs, outputs, kernel, stride, _, side = layer
        name = f"{inputs}->{outputs} {kernel}x{kernel}/{stride} at {side}"
        for what, make in graphs(cudnn, layer, options.views, options.type, options.fused):
            try:
                proposals, plans = cudnn.plans(make())
            except Refused as error:
                print(f"{name:26} {what:32} refused: {error}")
                continue
            engines = collections.Counter(engine for engine, _ in plans)
            counted = ", ".join(f"{engine} ({count})" for engine, count in engines.most_common())
            workspaces = " ".join(f"{bytes_ / 2**20:.0f}" for _, bytes_ in plans[:5])
            print(f"{name:26} {what:32} {len(plans):3} plans of {proposals:3}; engines {counted or '-'}; MiB {workspaces or '-'}", flush=True)


if __name__ == "__main__":
    main()
