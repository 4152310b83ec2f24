"""What is trained on, how it is split, and the table that comes of it. See `__main__` for how to make it anew."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy import injection_model as model
from tests.policy.report.data import Record
from tests.policy.training import documents, fit, texts

SEED = 20
OWN_ATTACKS, OWN_BENIGN, OWN_DOCUMENTS = 3000, 3000, 1200
LEFT_OUT = frozenset(("bipia_attack",))
"""Plain instructions in documents: to learn them is to learn their surroundings, which are harmless mails and tables."""
PERSONAS = frozenset(("act_as_prompts", "gpteacher_roleplay"))
"""Harmless prompts that are nearest to attacks, and few."""
FOREIGN = 2.0
"""How much a harmless text in another language counts: of the open ones nearly all are English, of the attacks many are
not, and a language must not be what makes an attack."""
FALSE_POSITIVES = (0.0015, 0.0033, 0.01)
"""Of harmless texts, for low, medium and high sensitivity."""
_PERSONA = re.compile(r"(?i)^i want you to act as|^ich möchte, dass sie als")

Scores = NDArray[np.float64]


class Made(NamedTuple):
    """A table as it was learnt, before it is rounded to bytes."""

    table: NDArray[np.float64]
    bias: float

    def score(self, data: fit.Windows, count: int) -> Scores:
        """The worst window of each text; texts that `data` leaves out have -99."""
        scores = np.full(count, -99.0)
        windows = np.add.reduceat(self.table[data.indices], data.begins) / data.sizes + self.bias
        np.maximum.at(scores, data.text, windows)
        return scores


class Corpus:
    """The open records, and the texts of our own after them."""

    def __init__(self, records: Sequence[Record]) -> None:
        attacks = texts.attacks(OWN_ATTACKS, SEED)
        harmless = texts.benign(OWN_BENIGN, SEED) + documents.documents(OWN_DOCUMENTS, SEED)
        foreign = texts.foreign(SEED)
        self.records = records
        self.open = len(records)
        self.texts = [*(record.text for record in records), *attacks, *harmless, *foreign]
        own = np.r_[np.ones(len(attacks)), np.zeros(len(harmless) + len(foreign))]
        self.labels = np.r_[[record.label for record in records], own].astype(int)
        self.weights = np.r_[
            [_weight(record) for record in records],
            np.full(len(attacks), 0.35),
            np.full(len(harmless), 0.5),
            np.full(len(foreign), FOREIGN),
        ]
        self.windows = fit.windows(self.texts)
        self.ours = np.arange(len(self.texts)) >= self.open

    def made(self, keep: NDArray[np.bool_]) -> Made:
        """What is learnt from some of the open records and all our own texts."""
        used = (np.r_[keep, np.ones(len(self.texts) - self.open, bool)]) & (self.weights > 0)
        return Made(*fit.fit(self.labels, self.weights, self.part(used)))

    def part(self, used: NDArray[np.bool_]) -> fit.Windows:
        """The windows of some texts."""
        data = self.windows
        kept = used[data.text]
        lengths = np.diff(np.r_[data.begins, len(data.indices)])
        indices = data.indices[np.repeat(kept, lengths)]
        begins = np.r_[0, np.cumsum(lengths[kept])[:-1]]
        return fit.Windows(indices, begins, data.sizes[kept], data.text[kept])

    def unseen(self, keep: NDArray[np.bool_]) -> Scores:
        """Scores of the open records that are not kept, by a table that has not seen them."""
        rest = np.r_[~keep, np.zeros(len(self.texts) - self.open, bool)]
        return self.made(keep).score(self.part(rest), len(self.texts))[: self.open]


def _weight(record: Record) -> float:
    if record.source in LEFT_OUT:
        return 0.0
    if record.source == "deepset" and record.label:
        return 0.0 if _PERSONA.search(record.text) else 0.6
    return 1.0 if record.label else 3.0 if record.source in PERSONAS else 1.5


def common_words(corpus: Corpus, count: int = 2500) -> list[str]:
    """The commonest words of four to fourteen letters, the commonest first."""
    found = collections.Counter(
        word for text in corpus.texts for word in set(re.findall(r"\b[a-z]{4,14}\b", text.lower()))
    )
    return [word for word, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


def groups(records: Sequence[Record]) -> NDArray[np.int64]:
    """Texts that share eight words in a row are of one group, and so are those that share them with these."""
    parent = list(range(len(records)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    seen: dict[tuple[str, ...], int] = {}
    for number, record in enumerate(records):
        words = re.findall(r"\w+", record.text.lower())
        for at in range(max(1, len(words) - 7)):
            other = seen.setdefault(tuple(words[at : at + 8]), number)
            parent[root(number)] = root(other)
    return np.array([root(number) for number in range(len(records))])


def folds(records: Sequence[Record], count: int = 5) -> NDArray[np.int64]:
    """Of each record its fold; a group is never divided."""
    group = groups(records)
    chosen = np.random.default_rng(SEED).integers(count, size=len(records))
    return chosen[group]


def cross_validated(corpus: Corpus, fold: NDArray[np.int64]) -> Scores:
    """Of each open record the score by a table that has seen nothing of its group."""
    scores = np.zeros(corpus.open)
    for number in range(fold.max() + 1):
        held = fold == number
        scores[held] = corpus.unseen(~held)[held]
    return scores


def thresholds(benign: Scores) -> tuple[float, float, float]:
    """The scores that so few harmless texts reach."""
    ordered = np.sort(benign)[::-1]
    low, medium, high = (float(ordered[int(share * len(ordered))]) + 0.01 for share in FALSE_POSITIVES)
    return low, medium, high


def packed(made: Made, limits: tuple[float, float, float]) -> model.Model:
    """Rounded to bytes; the largest weights are cut off, so that the others keep their places after the point."""
    scale = float(np.quantile(np.abs(made.table), 0.9995)) / 127
    table = np.clip(np.rint(made.table / scale), -127, 127).astype(np.int8)
    return model.Model(table, scale, made.bias, limits)
