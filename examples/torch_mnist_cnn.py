"""A PyTorch program that one line makes faster: the digits of MNIST, with `replace_modules` or without.

usage: python torch_mnist_cnn.py [--data FOLDER] [--epochs N] [--plain]
Trains on the sample of MNIST that comes with tilefuse, or on all of it from FOLDER (or TILEFUSE_DATA); with
--plain, on PyTorch's own kernels. The seconds of an epoch tell.
"""

import argparse
import os
import time

import tilefuse.torch
import torch
from tilefuse.datasets import load_digits_sample, load_mnist
from torch import nn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=os.environ.get("TILEFUSE_DATA"), metavar="FOLDER")
parser.add_argument("--epochs", type=int, default=10, metavar="N")
parser.add_argument("--plain", action="store_true", help="without tilefuse's kernels")
options = parser.parse_args()

train, test = load_mnist(options.data) if options.data else load_digits_sample()
x_train, x_test = (torch.from_numpy(x)[:, None] / 255 for x, _ in (train, test))
y_train, y_test = (torch.from_numpy(y).long() for _, y in (train, test))

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(64, 64, 3), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(64 * 3 * 3, 64), nn.ReLU(), nn.Linear(64, 10)),
)
loss_fn = nn.CrossEntropyLoss()

if not options.plain:
    tilefuse.torch.replace_modules(model)  # the one line; an optimizer of tilefuse.torch saves a little more

optimizer = torch.optim.Adam(model.parameters())
for epoch in range(options.epochs):
    start, total = time.perf_counter(), 0.0
    model.train()
    for batch in torch.randperm(len(x_train)).split(32):
        optimizer.zero_grad()
        loss = loss_fn(model(x_train[batch]), y_train[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    seconds = time.perf_counter() - start
    print(f"epoch {epoch + 1}: loss {total / len(x_train):.4f}, {seconds:.2f} s")

model.eval()
with torch.no_grad():
    logits = model(x_test)
accuracy = (logits.argmax(1) == y_test).float().mean().item()
print(f"test loss {loss_fn(logits, y_test).item():.4f}, test accuracy {accuracy:.4f}")
