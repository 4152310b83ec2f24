"""Defects of an answer: each is seen, and its harmless neighbour is not."""

from __future__ import annotations

import pytest

from policy import defects

PROSE = (
    "The harbour lies in the north of the town and is home to forty boats. It was dug in 1820, and it is still in use."
)


@pytest.mark.parametrize(("answer", "least", "said"), [("", 1, "empty"), (" \n", 1, "empty"), ("Yes.", 10, "4 of 10")])
def test_too_short(answer: str, least: int, said: str) -> None:
    assert defects.too_short(answer, least).startswith(said)
    assert not defects.too_short("Yes, in ten days.", 10)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (f"{PROSE}\n{PROSE}", ""),
        ("Yes", ""),
        ("A title without an end", ""),
        (f"{PROSE}\n- an item of a list which is long enough to be a sentence but has no full stop", ""),
        (f"{PROSE} The next thing to know about the harbour and its boats is that the", "the last sentence has no end"),
        (f"{PROSE} The next thing to know about the harbour (and its boats, which are", "open bracket"),
        ("Here:\n```python\nprint(1)", "open code fence"),
        ("Here:\n```python\nprint(1)\n```", ""),
    ],
)
def test_cut_off(answer: str, said: str) -> None:
    assert defects.cut_off(answer) == said


@pytest.mark.parametrize("reason", sorted(defects.LIMIT_REASONS))
def test_cut_off_by_the_provider(reason: str) -> None:
    assert defects.cut_off(PROSE, reason)
    assert not defects.cut_off(PROSE, "stop")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PROSE, ""),
        ("The same thing once more.\n" * 6, "lines"),
        ("and so on and so on " * 20, "runs of words"),
        ("哈" * 400, "compresses to less than an eighth"),
        ("| a | b |\n| - | - |\n" + "\n".join(f"| row {n} | {n * n} |" for n in range(30)), ""),
    ],
)
def test_repetition(answer: str, said: str) -> None:
    assert defects.repetition(answer) == said


@pytest.mark.parametrize(
    ("answer", "is_marked"),
    [
        ("Done.<|im_end|>", True),
        ("[INST] more [/INST]", True),
        ("Fine.\n### Instruction:\nNext", True),
        ("Fine.</s>", True),
        ("User: hello\nAssistant: hello", True),
        ("Use <s> for strike-through, a </s> closes it. Human: a word.", False),
        ("## Instructions\nMix.", False),
    ],
)
def test_markers(answer: str, is_marked: bool) -> None:
    assert bool(defects.markers(answer)) == is_marked


def test_echo() -> None:
    question = "Tell me how the harbour of the northern town was dug, and by whom."
    assert defects.echo(question, question)
    assert defects.echo(f"{question}\n{question} {question}", question)
    assert not defects.echo(PROSE, question)
    assert not defects.echo("Hi", "Hi")


@pytest.mark.parametrize(
    ("answer", "is_left"),
    [
        ("Dear [Your Name],", True),
        ("Dear {{ name }},", True),
        ("<insert date here>", True),
        ("lorem ipsum dolor", True),
        ("By [Company]", True),
        ("[name](https://example.com)", False),
        ("A list[index] and {x}.", False),
    ],
)
def test_placeholder(answer: str, is_left: bool) -> None:
    assert bool(defects.placeholder(answer)) == is_left


@pytest.mark.parametrize(
    ("answer", "is_broken"),
    [('{"a": 1}', False), ('```json\n{"a": 1}\n```', False), ("{'a': 1}", True), ("", True), ("[" * 100_000, True)],
)
def test_broken_json(answer: str, is_broken: bool) -> None:
    assert bool(defects.broken_json(answer)) == is_broken


def test_wrong_count() -> None:
    assert defects.wrong_count("1. a\n2. b\n3. c", "Give me five examples of boats") == "3 of 5 items"
    assert not defects.wrong_count("1. a\n2. b\n3. c", "List three examples of boats")
    assert not defects.wrong_count("1. a\n2. b", "Write 200 words about boats")
    assert not defects.wrong_count("Boats: a, b, c", "List three examples of boats")


def test_off_topic() -> None:
    question = "Explain photosynthesis in the leaves of broadleaf trees during autumn"
    assert defects.off_topic(PROSE * 3, [question])
    assert not defects.off_topic(PROSE * 3 + "So it is in autumn.", [question])
    assert not defects.off_topic("No.", [question])


def test_a_hostile_answer_takes_no_time() -> None:
    for piece in ("```\n", "(", "[Your ", "User: ", "a ", "\n- ", "{{", "<|im_"):
        answer = piece * 50_000
        defects.cut_off(answer)
        defects.repetition(answer)
        defects.markers(answer)
        defects.placeholder(answer)
        defects.wrong_count(answer, answer)
        defects.off_topic(answer, [answer])
        defects.echo(answer, answer)
