"""Which digit is it? A softmax over ten classes on MNIST, trained by fit() and by a loop written by hand.

usage: python mnist_softmax_mlp.py [--data FOLDER] [--epochs N]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA).
"""

import argparse
import os

import numpy as np
from tilefuse import GradientTape, Sequential
from tilefuse.datasets import load_digits_sample, load_mnist
from tilefuse.layers import Dense, Input
from tilefuse.losses import CategoricalCrossentropy
from tilefuse.metrics import classification_report
from tilefuse.optimizers import Adam
from tilefuse.utils import to_categorical

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=10, metavar="N")
options = parser.parse_args()


def clean(images, labels):
    """Without images that are blank and labels that are no digits."""
    good = images.any(axis=(1, 2)) & (labels <= 9)
    return images[good], labels[good]


def normalise(images):
    """Rows of 784 floats in [0, 1]."""
    return images.reshape(-1, 784).astype("float32") / 255


def augment(images, labels, rng):
    """The images, and after them a copy of each, shifted by up to two pixels."""
    shifted = np.empty_like(images)
    for i, (down, right) in enumerate(rng.integers(-2, 3, (len(images), 2))):
        shifted[i] = np.roll(images[i], (down, right), axis=(0, 1))  # the borders are blank
    return np.concatenate([images, shifted]), np.concatenate([labels, labels])


def preprocess(images, labels, rng=None):
    """Clean, augment where there is a generator of random numbers, normalise, one-hot."""
    images, labels = clean(images, labels)
    if rng is not None:
        images, labels = augment(images, labels, rng)
    return normalise(images), to_categorical(labels, 10)


def new_model():
    return Sequential(
        [
            Input(shape=(784,)),
            Dense(64, activation="relu"),
            Dense(64, activation="relu"),
            Dense(10, activation="softmax"),
        ]
    )


def report(model):
    """Accuracy, and precision, recall and F1 of each class, on the test set."""
    print(classification_report(y_test.argmax(axis=1), np.asarray(model(x_test)).argmax(axis=1), digits=3))


train, test = load_mnist(options.data) if options.data else load_digits_sample()
x_train, y_train = preprocess(*train, rng=np.random.default_rng(0))
x_test, y_test = preprocess(*test)

print("fit():")
model = new_model()
model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=options.epochs, validation_data=(x_test, y_test))
report(model)

print("A loop written by hand:")
model = new_model()
loss_function = CategoricalCrossentropy()
optimizer = Adam(learning_rate=1e-3)
rng = np.random.default_rng(1)
for epoch in range(options.epochs):
    losses = []
    for batch in np.array_split(rng.permutation(len(x_train)), len(x_train) // 32):
        with GradientTape() as tape:
            predictions = model(x_train[batch], training=True)
            loss = loss_function(y_train[batch], predictions)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    print(f"epoch {epoch + 1}/{options.epochs}: loss {np.mean(losses):.4f}")
report(model)
