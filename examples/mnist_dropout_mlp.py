"""Which digit is it? A layer of 128 and dropout, on MNIST's 28 x 28 images with integer labels.

usage: python mnist_dropout_mlp.py [--data FOLDER] [--epochs N]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA).
"""

import argparse
import os

from tilefuse import Sequential
from tilefuse.datasets import load_digits_sample, load_mnist
from tilefuse.layers import Dense, Dropout, Flatten, Input

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=5, metavar="N")
options = parser.parse_args()

(x_train, y_train), (x_test, y_test) = load_mnist(options.data) if options.data else load_digits_sample()
x_train, x_test = x_train / 255.0, x_test / 255.0

model = Sequential(
    [
        Input(shape=(28, 28)),
        Flatten(),
        Dense(128, activation="relu"),
        Dropout(0.2),
        Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=options.epochs)

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")
