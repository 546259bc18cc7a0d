"""Golden values of crates/metrics from numpy and scikit-learn, each formula written out.

    python tools/golden/metrics.py > crates/metrics/tests/golden/metrics.json
"""

import json

import numpy as np
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

rng = np.random.default_rng(0)


def normalise(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def matrix(x):
    return {"dim": x.shape[1], "values": [float(v) for v in x.ravel()]}


def features(rows, dim, classes):
    """Makes rows around a centre for each class, rounded to three decimals so that the file holds exactly the values used."""
    centres = rng.normal(size=(classes, dim))
    labels = rng.integers(0, classes, rows)
    return np.round(centres[labels] + rng.normal(size=(rows, dim)), 3), labels


def knn(classes=8, k=15, temperature=0.1):
    all_rows, labels = features(110, 6, classes)
    train, test, y, y_test = all_rows[:80], all_rows[80:], labels[:80], labels[80:]
    similarity = normalise(test) @ normalise(train).T
    nearest = np.argsort(-similarity, axis=1)[:, :k]
    votes = np.zeros((len(test), classes))
    for row, indices in enumerate(nearest):
        np.add.at(votes[row], y[indices], np.exp(similarity[row, indices] / temperature))
    order = np.argsort(-votes, axis=1)
    top5 = [label in best[:5] and votes[row, label] > 0 for row, (best, label) in enumerate(zip(order, y_test))]
    return {
        "classes": classes, "k": k, "temperature": temperature,
        "train": matrix(train), "train_labels": y.tolist(), "test": matrix(test), "test_labels": y_test.tolist(),
        "nearest": nearest.ravel().tolist(), "predictions": order[:, 0].tolist(),
        "top1": float(np.mean(order[:, 0] == y_test)), "top5": float(np.mean(top5)),
        "confusion": confusion_matrix(y_test, order[:, 0], labels=range(classes)).ravel().tolist(),
    }


def sphere(pairs=20, dim=5, temperature=0.5):
    first = rng.normal(size=(pairs, dim))
    z = np.round(np.concatenate([first, first + 0.7 * rng.normal(size=(pairs, dim))]), 3)
    n = normalise(z)
    views = len(n)
    square = ((n[:, None] - n[None]) ** 2).sum(-1)
    s = n @ n.T / temperature
    np.fill_diagonal(s, -np.inf)
    positive = (np.arange(views) + pairs) % views
    log_p = s - np.log(np.exp(s).sum(1, keepdims=True))
    p = np.exp(log_p)
    return {
        "z": matrix(z), "temperature": temperature,
        "alignment": float(square[np.arange(pairs), np.arange(pairs) + pairs].mean()),
        "uniformity": float(np.log(np.exp(-2 * square[np.triu_indices(views, 1)]).mean())),
        "spread": float(n.std(0).mean()),
        "loss": float(-log_p[np.arange(views), positive].mean()),
        "contrastive_accuracy": float((s.argmax(1) == positive).mean()),
        "entropy": float(-np.where(p > 0, p * log_p, 0).sum(1).mean()),
    }


def rank_me(rows, dim):
    x = np.round(rng.normal(size=(rows, dim)) * np.geomspace(10, 0.01, dim), 3)
    sigma = np.linalg.svd(x, compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    return {"x": matrix(x), "rank_me": float(np.exp(-(p * np.log(p)).sum()))}


def scores(rows=60, classes=7):
    x = np.round(rng.normal(size=(rows, classes)), 2)
    labels = rng.integers(0, classes, rows)
    return {
        "classes": classes, "scores": x.ravel().tolist(), "labels": labels.tolist(),
        "top3": float(top_k_accuracy_score(labels, x, k=3)),
    }


print(json.dumps({
    "knn": knn(), "sphere": sphere(), "rank_me": [rank_me(40, 12), rank_me(9, 30)], "scores": scores(),
}))
