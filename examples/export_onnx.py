"""A trained network for other runtimes: MNIST's digits, exported to ONNX and run there.

usage: python export_onnx.py [--data FOLDER] [--epochs N] [--output FILE]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA). Needs
onnx (pip install "tilefuse[onnx]"); where onnxruntime is installed, its predictions are compared with
tilefuse's.
"""

import argparse
import importlib.util
import os

from tilefuse import Sequential
from tilefuse.datasets import load_digits_sample, load_mnist
from tilefuse.layers import BatchNormalization, Conv2D, Dense, Flatten, Input, MaxPooling2D

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=3, metavar="N")
parser.add_argument("--output", default="digits.onnx", metavar="FILE")
options = parser.parse_args()

(x_train, y_train), (x_test, y_test) = load_mnist(options.data) if options.data else load_digits_sample()
x_train, x_test = (x[..., None].astype("float32") / 255 for x in (x_train, x_test))

model = Sequential(
    [
        Input(shape=(28, 28, 1)),
        Conv2D(16, 3, activation="relu"),
        MaxPooling2D(2),
        Conv2D(32, 3, activation="relu"),
        BatchNormalization(momentum=0.9),
        MaxPooling2D(2),
        Flatten(),
        Dense(64, activation="relu"),
        Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=options.epochs)
probabilities = model.predict(x_test)
print(f"tilefuse: test accuracy {(probabilities.argmax(axis=1) == y_test).mean():.4f}")

model.export(options.output, format="onnx")
print(f"{options.output}: {os.path.getsize(options.output) / 1024:.0f} KiB")

if importlib.util.find_spec("onnxruntime") is None:
    print("To run it here: pip install onnxruntime")
else:
    import onnxruntime

    session = onnxruntime.InferenceSession(options.output, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["output"], {"input": x_test})
    print(f"onnxruntime: test accuracy {(theirs.argmax(axis=1) == y_test).mean():.4f}")
    print(f"largest difference of a probability: {abs(theirs - probabilities).max():.1e}")
