"""Which digit is it? A small residual network, and a new head on it for another question: is the digit odd?

usage: python mnist_residual.py [--data FOLDER] [--epochs N]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA). The
second question is learned by transfer: the trained layers are frozen, and only a new last layer is trained.
"""

import argparse
import os

from tilefuse import Model
from tilefuse.datasets import load_digits_sample, load_mnist
from tilefuse.layers import (
    Activation,
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    Input,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=5, metavar="N")
options = parser.parse_args()


def convolution(x, filters, strides=1, activation="relu"):
    """A convolution, batch normalisation, and an activation."""
    x = Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    x = BatchNormalization(momentum=0.9)(x)
    return Activation(activation)(x)


def block(x, filters, strides=1):
    """Two convolutions, and a way around them."""
    y = convolution(x, filters, strides)
    y = convolution(y, filters, activation="linear")
    if strides > 1:
        x = Conv2D(filters, 1, strides=strides, use_bias=False)(x)
        x = BatchNormalization(momentum=0.9)(x)
    return Activation("relu")(Add()([y, x]))


(x_train, y_train), (x_test, y_test) = load_mnist(options.data) if options.data else load_digits_sample()
x_train, x_test = x_train[..., None] / 255.0, x_test[..., None] / 255.0

inputs = Input(shape=(28, 28, 1))
x = convolution(inputs, 16)
x = block(x, 16)
x = block(x, 32, strides=2)
x = block(x, 64, strides=2)
features = GlobalAveragePooling2D()(x)
model = Model(inputs, Dense(10, activation="softmax")(features))
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.summary()
model.fit(x_train, y_train, batch_size=32, epochs=options.epochs)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"ten classes: test loss {loss:.4f}, test accuracy {accuracy:.4f}")

for layer in model.layers:
    layer.trainable = False
odd = Model(inputs, Dense(1, activation="sigmoid")(features))
odd.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
odd.fit(x_train, y_train % 2, batch_size=32, epochs=options.epochs)
loss, accuracy = odd.evaluate(x_test, y_test % 2, verbose=0)
print(f"odd or even: test loss {loss:.4f}, test accuracy {accuracy:.4f}")
