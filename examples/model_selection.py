"""Which network is best? A search by scikit-learn over layers and learning rates, by cross-validation.

usage: python model_selection.py [--epochs N] [--jobs N]
On the sample of MNIST that comes with tilefuse. Needs scikit-learn (pip install "tilefuse[sklearn]").
"""

import argparse

from sklearn.model_selection import GridSearchCV
from tilefuse import Sequential
from tilefuse.datasets import load_digits_sample
from tilefuse.interop.sklearn import Classifier
from tilefuse.layers import Dense, Dropout, Flatten, Input

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=5, metavar="N")
parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at the same time")
options = parser.parse_args()


def network(shape, outputs, units=64, dropout=0.0):
    layers = [
        Flatten(),
        Dense(units, activation="relu"),
        Dropout(dropout),
        Dense(outputs, activation="softmax"),
    ]
    return Sequential([Input(shape=shape), *layers])


(x_train, y_train), (x_test, y_test) = load_digits_sample()
x_train, x_test = x_train / 255.0, x_test / 255.0

search = GridSearchCV(
    Classifier(network, epochs=options.epochs, random_state=0),
    {"network__units": [16, 128], "network__dropout": [0.0, 0.2], "learning_rate": [1e-3, 1e-2]},
    cv=3,
    n_jobs=options.jobs,
)
search.fit(x_train, y_train)

results = search.cv_results_
for i in results["rank_test_score"].argsort():
    chosen = ", ".join(f"{name} {value}" for name, value in results["params"][i].items())
    print(f"{results['rank_test_score'][i]}. accuracy {results['mean_test_score'][i]:.4f}: {chosen}")
print(f"test accuracy of the best, trained on all: {search.score(x_test, y_test):.4f}")
