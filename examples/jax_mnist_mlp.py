"""Ten classes of handwritten digits in JAX: its own training loop, with layers and loss from tilefuse.jax.

pip install "tilefuse[jax]"
python examples/jax_mnist_mlp.py --epochs 5
"""

import argparse
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import tilefuse.jax as tf
from tilefuse.datasets import load_digits_sample, load_mnist


def initial(rng, *sizes):
    """Weights and biases of dense layers."""
    return [
        (rng.normal(0, (2 / k) ** 0.5, (k, n)).astype(np.float32), np.zeros(n, np.float32))
        for k, n in pairwise(sizes)
    ]


def scores(layers, x):
    for w, b in layers[:-1]:
        x = tf.dense(x, w, b, activation="relu")
    return tf.dense(x, *layers[-1])


def loss(layers, x, labels, step):
    return tf.softmax_cross_entropy(scores(layers, tf.dropout(x, 0.1, step=step)), labels)


@jax.jit
def train_step(layers, velocity, x, labels, step):
    value, gradients = jax.value_and_grad(loss)(layers, x, labels, step)
    velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.05 * g, velocity, gradients)
    return jax.tree.map(jnp.add, layers, velocity), velocity, value


@jax.jit
def accuracy(layers, x, labels):
    return (scores(layers, x).argmax(-1) == labels).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST's files; without it, a sample of MNIST")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    (x_train, y_train), (x_test, y_test) = load_mnist(options.data) if options.data else load_digits_sample()
    x_train, x_test = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (x_train, x_test))
    y_train, y_test = y_train.astype(np.int32), y_test.astype(np.int32)

    rng = np.random.default_rng(0)
    layers = initial(rng, 784, 128, 64, 10)
    velocity = jax.tree.map(np.zeros_like, layers)
    step = 0
    for epoch in range(options.epochs):
        order = rng.permutation(len(x_train))
        losses = []
        for batch in np.split(order[: len(order) // 32 * 32], len(order) // 32):
            layers, velocity, value = train_step(layers, velocity, x_train[batch], y_train[batch], step)
            losses.append(value)
            step += 1
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    print(f"test accuracy {accuracy(layers, x_test, y_test):.4f}")


if __name__ == "__main__":
    main()
