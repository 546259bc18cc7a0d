"""Golden values of the logistic regression in crates/eval from scikit-learn.

    python tools/golden/logistic.py > crates/eval/tests/golden/logistic.json
"""

import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(1)
rows, dim, classes = 300, 6, 4
labels = rng.integers(0, classes, rows)
centres = rng.normal(size=(classes, dim))
x = np.round((centres[labels] + 1.2 * rng.normal(size=(rows, dim))) * [1, 5, 0.2, 1, 1, 3] + 2, 2)
train, test, y, y_test = x[:200], x[200:], labels[:200], labels[200:]
scaler = StandardScaler().fit(train)
cases = []
for c in [1.0, 0.01, 100.0]:
    model = LogisticRegression(C=c, tol=1e-9, max_iter=10_000).fit(scaler.transform(train), y)
    p = model.predict_proba(scaler.transform(train))
    loss = log_loss(y, p) + (model.coef_**2).sum() / (2 * c * len(train))
    p_test = model.predict_proba(scaler.transform(test))
    cases.append({
        "l2": 1 / c, "objective": float(loss), "test_loss": float(log_loss(y_test, p_test)),
        "predictions": p_test.argmax(1).tolist(),
    })
print(json.dumps({
    "dim": dim, "classes": classes, "train": train.ravel().tolist(), "labels": y.tolist(),
    "test": test.ravel().tolist(), "test_labels": y_test.tolist(), "cases": cases,
}))
