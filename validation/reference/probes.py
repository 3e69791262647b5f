# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/probes.h5: logistic regression and linear support vector machines by scikit-learn.

    python3 validation/reference/probes.py tests/data/probes.h5

Rows around random centres of their classes, float32. logistic_<C>: decision values of the test rows, five classes, mean 0;
binary_<C>: of classes 0 and 1 alone (both sets); vissl_<lambda>: standardised features, C = n / lambda; svm_<C>: one
machine for each class on rows of length one, VOC07's weights. folds: StratifiedKFold(3) of class 2 against the others.
precision: average_precision_score of the test rows' svm_1, class by class.
"""
import sys
import warnings

import h5py
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

CLASSES, TRAIN, TEST, DIMENSION = 5, 123, 61, 13


def logistic(x, y, test, c):
    """Newton's method: L-BFGS ends where the objective, not the gradient, no longer changes."""
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, y)
    scores = model.decision_function(test)
    return scores if scores.ndim == 1 else scores - scores.mean(axis=1, keepdims=True)  # nothing fixes the mean


def unit(x):
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)


def svm(x, y, test, c):
    machines = [LinearSVC(C=c, class_weight={1: 2, -1: 1}, intercept_scaling=1.0, loss="squared_hinge", penalty="l2",
                          dual=True, tol=1e-9, max_iter=1000000, random_state=0).fit(x, np.where(y == k, 1, -1))
                for k in range(CLASSES)]
    return np.stack([m.decision_function(test) for m in machines], axis=1)


def main():
    warnings.simplefilter("error", ConvergenceWarning)
    random = np.random.default_rng(16)
    centres = random.normal(size=(CLASSES, DIMENSION))
    y = random.integers(0, CLASSES, TRAIN + TEST)
    x = (centres[y] + 1.5 * random.normal(size=(TRAIN + TEST, DIMENSION)) + 0.5).astype("float32")
    wide = x.astype("float64")
    (a, b), (ya, yb) = np.split(wide, [TRAIN]), np.split(y, [TRAIN])
    with h5py.File(sys.argv[1], "w") as f:
        f["train"], f["test"] = np.split(x, [TRAIN])
        f["train_labels"], f["test_labels"] = ya.astype("int32"), yb.astype("int32")
        for c in (0.01, 1, 10):
            f[f"logistic_{c}"] = logistic(a, ya, b, c)
        two, two_test = ya < 2, yb < 2
        f["binary_1"] = logistic(a[two], ya[two], b[two_test], 1)
        scaler = StandardScaler().fit(a)
        f["vissl_0.1"] = logistic(scaler.transform(a), ya, scaler.transform(b), TRAIN / 0.1)
        for c in (0.1, 1, 20):
            f[f"svm_{c}"] = svm(unit(a), ya, unit(b), c)
        signs = np.where(ya == 2, 1, -1)
        folds = np.empty(TRAIN, "int32")
        for i, (_, held) in enumerate(StratifiedKFold(3).split(a, signs)):
            folds[held] = i
        f["folds"] = folds
        f["precision"] = [average_precision_score(yb == k, f["svm_1"][:, k]) for k in range(CLASSES)]


if __name__ == "__main__":
    main()
