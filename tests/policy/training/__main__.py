"""Make the table of `prompt-injection` anew: `python -m tests.policy.training`. Takes about two minutes on one core.

Thresholds come from cross-validated scores, the table from all texts. Equal data and equal numpy give an equal table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import policy
from tests.policy.report.data import Data
from tests.policy.training import learn

TABLE = Path(policy.__path__[0]) / "data" / "prompt_injection.xz"


def main() -> None:
    """Learn and write."""
    corpus = learn.Corpus(Data().records("injection"))
    scores = learn.cross_validated(corpus, learn.folds(corpus.records))
    attack = corpus.labels[: corpus.open] == 1
    limits = learn.thresholds(scores[~attack])
    for name, limit in zip(("low", "medium", "high"), limits, strict=True):
        found, wrong = (scores[attack] >= limit).mean(), (scores[~attack] >= limit).mean()
        print(f"{name}: threshold {limit:.2f}, without rules: recall {found:.3f}, false positives {wrong:.2%}")
    made = corpus.made(np.ones(corpus.open, bool))
    model = learn.packed(made, limits)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_bytes(model.dumped())
    TABLE.with_name("words.txt").write_text("\n".join(learn.common_words(corpus)) + "\n")
    print(f"{TABLE.name}: {TABLE.stat().st_size} bytes, bias {model.bias:.2f}")


if __name__ == "__main__":
    main()
