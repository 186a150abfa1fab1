"""Which of two classes does an image belong to? Four convolutions, on 150 x 150 RGB images from a folder.

usage: python image_folder_cnn.py [--data FOLDER] [--epochs N] [--predict IMAGE] [--output FOLDER]
FOLDER holds train/ and test/ (or validation/), each with a sub-folder of images for each of the two classes;
or only the two sub-folders, and a fifth of the images is kept for the test. Without --data it first writes
a folder: the digits 3 and 8 of the sample of MNIST that comes with tilefuse; of these 99 % come out right. At
the end it says what --predict shows, or the last image of the test. The curves and the model go to --output.
"""

import argparse
import sys
from pathlib import Path

from tilefuse import Sequential
from tilefuse.datasets import (
    ImageDataGenerator,
    ImageError,
    load_digits_sample,
    load_image,
    write_image_folder,
)
from tilefuse.history import plot_history
from tilefuse.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=10, metavar="N")
parser.add_argument("--predict", type=Path, metavar="IMAGE")
parser.add_argument("--output", type=Path, default=Path("image_folder_cnn"), metavar="FOLDER")
options = parser.parse_args()
folder, output = options.data or options.output / "digits", options.output
output.mkdir(parents=True, exist_ok=True)

if not options.data:
    for part, (images, labels) in zip(("train", "test"), load_digits_sample(), strict=True):
        chosen = (labels == 3) | (labels == 8)
        write_image_folder(folder / part, images[chosen], labels[chosen] // 8, ["three", "eight"])
    print(f"Wrote images of the digits 3 and 8 to {folder}")

# Training sees every image changed anew in each epoch; the test sees all as they are.
changing = ImageDataGenerator(
    rescale=1 / 255,
    rotation_range=20,
    width_shift_range=0.1,
    height_shift_range=0.1,
    zoom_range=0.1,
    horizontal_flip=True,
    validation_split=0.2,
)
plain = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
how = {"target_size": (150, 150), "batch_size": 32, "class_mode": "binary", "interpolation": "bilinear"}
try:
    if (folder / "train").is_dir():
        train = changing.flow_from_directory(folder / "train", **how)
        held_out = folder / ("validation" if (folder / "validation").is_dir() else "test")
        test = plain.flow_from_directory(held_out, shuffle=False, classes=list(train.class_indices), **how)
    else:
        train = changing.flow_from_directory(folder, subset="training", **how)
        test = plain.flow_from_directory(folder, subset="validation", shuffle=False, **how)
    question = options.predict or Path(test.filepaths[-1])
    image = load_image(question, (150, 150), rescale=1 / 255)
except (OSError, ValueError) as error:
    sys.exit(f"image_folder_cnn.py: {error}\nWhat a folder must hold is said by --help.")
classes = list(train.class_indices)
print(f"{train.samples} images to train on, {test.samples} to test with; classes: {', '.join(classes)}")

model = Sequential(
    [
        Input(shape=(150, 150, 3)),
        Conv2D(32, (3, 3), activation="relu"),
        MaxPooling2D((2, 2)),
        Conv2D(64, (3, 3), activation="relu"),
        MaxPooling2D((2, 2)),
        Conv2D(128, (3, 3), activation="relu"),
        MaxPooling2D((2, 2)),
        Conv2D(128, (3, 3), activation="relu"),
        MaxPooling2D((2, 2)),
        Flatten(),
        Dropout(0.5),
        Dense(512, activation="relu"),
        Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
model.summary()
try:
    history = model.fit(train, epochs=options.epochs, validation_data=test)
except ImageError as error:
    sys.exit(f"image_folder_cnn.py: {folder}: {error}")

loss, accuracy = model.evaluate(test, verbose=0)
print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")

probability = float(model.predict(image[None], verbose=0)[0, 0])
name, probability = (classes[1], probability) if probability > 0.5 else (classes[0], 1 - probability)
print(f"{question}: {name}, with a probability of {probability:.4f}")

plot_history(history.history, history.epoch, output / "curves.png")
model.save(output / "model.safetensors")
print(f"The curves are in {output / 'curves.png'}, the trained model in {output / 'model.safetensors'}")
