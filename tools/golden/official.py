#!/usr/bin/env python3
"""Makes checkpoints of the official code of SimCLR with random weights, and its outputs with them.

    tools/golden/official.py CHECKOUT

CHECKOUT is a clone of github.com/google-research/simclr. Writes crates/exchange/tests/golden/official: a ResNet-18 of width 1/64 with a projection
head, as TensorFlow 1 and 2 save it, and its outputs for two images. Needs Python with tensorflow and tf_keras; tools/check_import.py uses the functions for larger networks.
"""

import importlib
import json
import os
import pathlib
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf2
import tensorflow.compat.v1 as tf
from absl import flags

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/exchange/tests/golden/official"
STEP = 1234


SETTINGS = {
    "batch_norm_decay": 0.9, "proj_head_mode": "nonlinear", "optimizer": "lars", "train_mode": "pretrain", "sk_ratio": 0.0, "se_ratio": 0.0,
    "fine_tune_after_block": -1, "num_proj_layers": 2, "proj_out_dim": 128, "ft_proj_selector": 0, "global_bn": True, "use_blur": False,
    "lineareval_while_pretraining": True, "resnet_depth": 18, "width_multiplier": 1.0, "image_size": 224,
}


def official(checkout):
    """Loads the official code's modules for TensorFlow 1 and 2, whose settings are command-line flags of its programs."""
    for name, value in SETTINGS.items():
        kinds = {bool: flags.DEFINE_boolean, float: flags.DEFINE_float, int: flags.DEFINE_integer, str: flags.DEFINE_string}
        kinds[type(value)](name, value, "")
    flags.FLAGS(["official"])
    checkout = pathlib.Path(checkout)
    resnet, heads = modules(checkout, "resnet", "model_util")
    resnet2, model2 = modules(checkout / "tf2", "resnet", "model")

    # Widths below 1 make numbers of channels that are not integers.
    convolution, make = resnet.conv2d_fixed_padding, resnet2.Conv2dFixedPadding.__init__
    resnet.conv2d_fixed_padding = lambda filters, **words: convolution(filters=int(filters), **words)
    resnet2.Conv2dFixedPadding.__init__ = lambda self, filters, **words: make(self, filters=int(filters), **words)
    return {1: (resnet, heads), 2: model2}


def modules(folder, *names):
    sys.path.insert(0, str(folder))
    for name in ("resnet", "model", "model_util", "data_util", "lars_optimizer", "objective"):
        sys.modules.pop(name, None)
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.pop(0)


def random_values(name, shape, draw):
    if name.endswith("kernel"):
        return draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    low, high = {"gamma": (0.5, 1), "beta": (0, 0.3), "moving_mean": (-0.1, 0.1), "moving_variance": (0.5, 1.5)}.get(
        name.rsplit("/", 1)[-1], (-0.1, 0.1)
    )
    return draw.uniform(low, high, shape)


def checkpoint(modules, folder, images, *, depth, width, layers=2, dim=128, sk_ratio=0.0, version=1):
    """Saves a network with random weights and a classifier in `folder`, with the variables that training adds; returns h and z of images
    (n, S, S, 3) from 0 to 1. `version` is TensorFlow's, 1 or 2, or "saved model" for a SavedModel of TensorFlow 2."""
    settings = flags.FLAGS
    settings.num_proj_layers, settings.proj_out_dim, settings.sk_ratio = layers, dim, sk_ratio
    settings.resnet_depth, settings.image_size = depth, images.shape[1]
    if version == 1:
        return checkpoint1(*modules[1], folder, images, depth, width)
    return checkpoint2(modules[2], folder, images, width, version)


def checkpoint1(resnet, heads, folder, images, depth, width):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = tf.placeholder(tf.float32, [None, *images.shape[1:]])
        with tf.variable_scope("base_model"):
            network = resnet.resnet_v1(depth, width, cifar_stem=images.shape[1] <= 32)
            h = network(inputs, is_training=False)
        z = heads.projection_head(h, is_training=False)
        heads.supervised_head(h, 10, is_training=False)
        first, draw = tf.global_variables()[0], np.random.default_rng(1)
        tf.get_variable(first.op.name + "/Momentum", first.shape)
        step = tf.train.get_or_create_global_step()
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            shape = variable.shape.as_list()
            variable.load(STEP if variable is step else random_values(variable.op.name, shape, draw), session)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=STEP, write_meta_graph=False)
        return session.run([h, z], {inputs: images})


def checkpoint2(model, folder, images, width, version):
    flags.FLAGS["width_multiplier"].value = width
    network, draw = model.Model(10), np.random.default_rng(1)
    network(tf2.constant(images), training=False)
    for variable in network.variables:
        variable.assign(random_values(variable.name.split(":")[0], variable.shape, draw))
    if version == "saved model":
        # As the official run.py does.
        module = tf2.Module()
        module.model, module.trainable_variables_list = network, network.trainable_variables
        tf2.saved_model.save(module, str(folder))
    else:
        step = tf2.Variable(STEP, dtype=tf2.int64)
        tf2.train.Checkpoint(model=network, global_step=step).write(str(folder / f"ckpt-{STEP}"))
    h = network.resnet_model(tf2.constant(images), training=False)
    return h.numpy(), network(tf2.constant(images), training=False)[0].numpy()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    side = 40
    # The test computes the same bytes.
    pixels = np.arange(2 * side * side * 3) * 7919 % 251 % 256
    images = (pixels.reshape(2, side, side, 3) / 255).astype(np.float32)
    loaded, outputs = official(sys.argv[1]), {}
    for version, name in [(1, f"model.ckpt-{STEP}"), (2, f"ckpt-{STEP}")]:
        h, z = checkpoint(loaded, GOLDEN, images, depth=18, width=1 / 64, dim=4, version=version)
        outputs[name] = {"h": h.tolist(), "z": z.tolist()}
    # This file contains an absolute path of this machine.
    (GOLDEN / "checkpoint").unlink()
    (GOLDEN / "outputs.json").write_text(json.dumps(outputs) + "\n")


if __name__ == "__main__":
    main()
