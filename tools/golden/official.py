#!/usr/bin/env python3
"""Checkpoints of the official code of SimCLR, with random weights, and what it computes with them.

    tools/golden/official.py CHECKOUT

CHECKOUT is one of github.com/google-research/simclr. Writes crates/exchange/tests/golden/official: a ResNet-18 of width 1/64 with a projection
head, and what it makes of two images. Needs Python with tensorflow and tf_keras; tools/check_import.py uses the functions for larger networks.
"""

import json
import os
import pathlib
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/exchange/tests/golden/official"
STEP = 1234


def official(checkout):
    """The official code's modules, whose settings are flags of the program that it comes with."""
    sys.path.insert(0, str(checkout))
    import model_util
    import resnet

    for name, value in {
        "batch_norm_decay": 0.9, "proj_head_mode": "nonlinear", "optimizer": "lars", "train_mode": "pretrain"
    }.items():
        (flags.DEFINE_float if isinstance(value, float) else flags.DEFINE_string)(name, value, "")
    for name, value in {"sk_ratio": 0.0, "se_ratio": 0.0}.items():
        flags.DEFINE_float(name, value, "")
    for name, value in {"fine_tune_after_block": -1, "num_proj_layers": 2, "proj_out_dim": 128, "ft_proj_selector": 0}.items():
        flags.DEFINE_integer(name, value, "")
    flags.DEFINE_boolean("global_bn", True, "")
    flags.FLAGS(["official"])

    # Widths below 1 make numbers of channels that are no integers.
    convolution = resnet.conv2d_fixed_padding
    resnet.conv2d_fixed_padding = lambda filters, **words: convolution(filters=int(filters), **words)
    return resnet, model_util


def random_values(variable, draw):
    name, shape = variable.op.name, variable.shape.as_list()
    if name.endswith("kernel"):
        return draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    low, high = {"gamma": (0.5, 1), "beta": (0, 0.3), "moving_mean": (-0.1, 0.1), "moving_variance": (0.5, 1.5)}.get(
        name.rsplit("/", 1)[1], (-0.1, 0.1)
    )
    return draw.uniform(low, high, shape)


def checkpoint(modules, folder, images, *, depth, width, layers=2, dim=128, sk_ratio=0.0):
    """Saves a network of random weights in `folder`, with a classifier, and what training leaves beside them; returns h and z of images
    (n, S, S, 3) from 0 to 1."""
    resnet, model_util = modules
    flags.FLAGS.num_proj_layers, flags.FLAGS.proj_out_dim, flags.FLAGS.sk_ratio = layers, dim, sk_ratio
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.placeholder(tf.float32, [None, *images.shape[1:]])
        with tf.variable_scope("base_model"):
            network = resnet.resnet_v1(depth, width, cifar_stem=images.shape[1] <= 32)
            h = network(inputs, is_training=False)
        z = model_util.projection_head(h, is_training=False)
        model_util.supervised_head(h, 10, is_training=False)
        first, draw = tf.global_variables()[0], np.random.default_rng(1)
        tf.get_variable(first.op.name + "/Momentum", first.shape)
        step = tf.train.get_or_create_global_step()
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            variable.load(STEP if variable is step else random_values(variable, draw), session)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=STEP, write_meta_graph=False)
        return session.run([h, z], {inputs: images})


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    side = 40
    # Bytes that the test computes too.
    pixels = np.arange(2 * side * side * 3) * 7919 % 251 % 256
    images = (pixels.reshape(2, side, side, 3) / 255).astype(np.float32)
    h, z = checkpoint(official(sys.argv[1]), GOLDEN, images, depth=18, width=1 / 64, dim=4)
    # It has a whole path in it.
    (GOLDEN / "checkpoint").unlink()
    (GOLDEN / "outputs.json").write_text(json.dumps({"size": side, "h": h.tolist(), "z": z.tolist()}) + "\n")


if __name__ == "__main__":
    main()
