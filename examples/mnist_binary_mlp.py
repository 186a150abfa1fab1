"""Is a handwritten digit odd? A network with one sigmoid output, on MNIST.

usage: python mnist_binary_mlp.py [--data FOLDER] [--epochs N]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA).
"""

import argparse
import os

import numpy as np
from tilefuse import Sequential
from tilefuse.datasets import load_digits_sample, load_mnist
from tilefuse.layers import Dense, Input

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=10, metavar="N")
options = parser.parse_args()

(x_train, y_train), (x_test, y_test) = load_mnist(options.data) if options.data else load_digits_sample()
x_train = x_train.reshape(-1, 784).astype("float32") / 255
x_test = x_test.reshape(-1, 784).astype("float32") / 255
odd_train = y_train % 2
odd_test = y_test % 2

model = Sequential(
    [
        Input(shape=(784,)),
        Dense(64, activation="relu"),
        Dense(64, activation="relu"),
        Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
model.summary()
model.fit(x_train, odd_train, batch_size=128, epochs=options.epochs, validation_split=0.2)

loss, accuracy = model.evaluate(x_test, odd_test, verbose=0)
print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")

predicted = (model.predict(x_test, verbose=0) > 0.5).astype("int32")
print(f"accuracy of the predicted classes {np.mean(predicted[:, 0] == odd_test):.4f}")
