"""Learning the table of `policy/injection_model.py`: logistic regression over windows, by multiple instances.

Every window of a benign text is benign. Of an attack it is only known that some window is one: each window counts by
how much the model, as it stands, holds it for the attack. Full batches and Adam, so equal data gives equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy import injection_model as model

STEPS = 50
RATE = 0.1
PENALTY = 5e-3
SOFTNESS = 1e-5
"""What keeps Adam from giving an n-gram that occurs once the weight of one that occurs in many texts."""
SHARPNESS = 1.5
"""How strongly the windows of an attack that score highest are preferred."""


class Windows(NamedTuple):
    """The windows of some texts: the indices of all their n-grams in a row, and where each window begins in that."""

    indices: NDArray[np.int32]
    begins: NDArray[np.int64]
    sizes: NDArray[np.float64]
    text: NDArray[np.int64]
    """Of each window, the number of its text."""


def windows(texts: Sequence[str]) -> Windows:
    """All windows of all texts, as inference cuts them."""
    indices: list[NDArray[np.int32]] = []
    begins, sizes, owners, total = [], [], [], 0
    for number, text in enumerate(texts):
        for data in model.chunks(model.fold(text)):
            features = model.Features(data)
            for start, end in zip(*model.spans(features), strict=True):
                low, high = np.searchsorted(features.starts, (start, end))
                own = np.concatenate(
                    [
                        features.four[start:end],
                        features.six[start:end],
                        features.words[low:high],
                        features.pairs[low:high],
                        features.triples[low:high],
                    ]
                ).astype(np.int32)
                indices.append(own)
                begins.append(total)
                sizes.append(model.size(end - start))
                owners.append(number)
                total += len(own)
    return Windows(np.concatenate(indices), np.array(begins), np.array(sizes), np.array(owners))


def fit(labels: NDArray[np.int64], weights: NDArray[np.float64], data: Windows) -> tuple[NDArray[np.float64], float]:
    """The table and the bias. Labels and weights (how much it counts) are of all texts, also those not in `data`."""
    positive = labels[data.text] == 1
    firsts = np.flatnonzero(np.r_[True, np.diff(data.text) != 0])
    counts = np.diff(np.r_[firsts, len(data.text)])
    owner = np.repeat(np.arange(len(firsts)), counts)
    lengths = np.diff(np.r_[data.begins, len(data.indices)])
    table, bias = np.zeros(1 << model.BITS), -1.0
    mean, square = np.zeros(len(table) + 1), np.zeros(len(table) + 1)
    for step in range(1, STEPS + 1):
        scores = np.add.reduceat(table[data.indices], data.begins) / data.sizes + bias
        guess = 1 / (1 + np.exp(-scores))
        tops = np.maximum.reduceat(scores, firsts)
        share = np.exp(SHARPNESS * (scores - tops[owner]))
        share /= np.add.reduceat(share, firsts)[owner]
        # Of benign texts all windows count, long ones more, but less than in proportion to their length.
        spread = np.where(positive, share, (0.5 * share + 0.5 / np.sqrt(counts[owner])))
        slope = spread * (guess - positive) * weights[data.text]
        slope = slope / len(firsts)
        gradient = np.bincount(data.indices, np.repeat(slope / data.sizes, lengths), len(table))
        gradient = np.r_[gradient + PENALTY * table / len(firsts), slope.sum()]
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.98 * square + 0.02 * gradient**2
        change = RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.98**step)) + SOFTNESS)
        table -= change[:-1]
        bias -= change[-1]
    return table, float(bias)
