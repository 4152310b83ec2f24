"""Where the weights of `policy/refusal.py` and `policy/grounding.py` come from: `python -m tests.policy.report.fit`.

A logistic regression with a penalty on large weights, on the half of the open data that rules may be written on. It
prints the weights as they stand in the code; nothing is written. Equal data gives equal weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from policy import grounding, refusal
from tests.policy.report.data import Data, Record

Features = Mapping[str, float]

DOUBT = 0.3
"""Log odds by which an answer must look more like a refusal than not: to flag a good answer is the worse mistake."""

_MARK = re.compile(r"\[\d+\]")


def fit(rows: Sequence[Features], labels: Sequence[int], names: Sequence[str], penalty: float) -> list[float]:
    """The weights of the named features, and last the bias; by Newton's method. Weights count on the features as they
    are, the penalty on features of equal spread."""
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    mean, spread = table.mean(0), table.std(0) + 1e-9
    inputs = np.c_[(table - mean) / spread, np.ones(len(table))]
    wanted = np.array(labels)
    penalties = np.r_[np.full(len(names), penalty), 1e-6]
    weights = np.zeros(len(names) + 1)
    for _ in range(50):
        guess = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (guess - wanted) + penalties * weights
        curve = (inputs * (guess * (1 - guess))[:, None]).T @ inputs + np.diag(penalties)
        weights -= np.linalg.solve(curve, slope)
    plain = weights[:-1] / spread
    return [*plain, float(weights[-1] - (plain * mean).sum())]


def claims(data: Data) -> list[Record]:
    """The claims that have evidence."""
    return [record for record in data.records("grounding") if record.evidence]


def refusals(data: Data) -> list[Record]:
    """The answers that people have labelled as refusals or not."""
    return [record for record in data.records("quality") if record.kind == "refusal"]


def claim_features(record: Record) -> Features:
    """What the support of a claim is made of."""
    passage = grounding.read_passage("\n".join(record.evidence))
    return grounding.features(claim(record), passage, record.question or "") or {}


def claim(record: Record) -> str:
    """What a claim says, without its citations."""
    return _MARK.sub("", record.text)


def _print(title: str, names: Sequence[str], weights: Sequence[float]) -> None:
    print(title)
    for name, weight in zip(names, weights, strict=False):
        print(f'    "{name}": {weight:.3f},')
    print(f"BIAS = {weights[-1]:.3f}\n")


def main() -> None:
    """Print both tables of weights."""
    data = Data()
    seen = [record for record in claims(data) if not record.unseen]
    labels = [record.label for record in seen]
    _print("grounding.WEIGHTS", grounding.FEATURES, fit([*map(claim_features, seen)], labels, grounding.FEATURES, 10.0))
    seen = [record for record in refusals(data) if not record.unseen]
    rows = [refusal.features(record.text) for record in seen]
    names = tuple(refusal.WEIGHTS)
    *weights, bias = fit(rows, [record.label for record in seen], names, 10.0)
    _print("refusal.WEIGHTS", names, [*weights, bias - DOUBT])


if __name__ == "__main__":
    main()
