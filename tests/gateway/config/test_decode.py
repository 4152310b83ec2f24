"""Values: what each type takes, what it refuses, and what is said then."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta, Struct

from gateway.config.decode import Decoder
from gateway.config.document import parse
from gateway.config.registry import Registry
from gateway.types import Phase

DIGITS = "(write plain decimal digits)"


class Inner(Struct, frozen=True):
    id: str
    size: int = 0

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("nobody wants 13")


class Everything(Struct, frozen=True, kw_only=True):
    """One field of every type that settings may have."""

    text: Annotated[str, Meta(max_length=10)] = ""
    coded: Annotated[str, Meta(pattern="^[a-z]+$", extra_json_schema={"examples": ["abc"]})] = "a"
    secret: Annotated[str, Meta(pattern="^[A-Z]+$", extra_json_schema={"writeOnly": True})] = "A"
    loose: Annotated[str, Meta(pattern="b")] = "b"
    network: Annotated[str, Meta(extra_json_schema={"format": "ip-network"})] = "::"
    switch: bool = False
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    number: Annotated[float, Meta(gt=0, lt=10)] = 1.0
    maybe: int | None = None
    phase: Phase = Phase.INPUT
    several: Annotated[tuple[Phase, ...], Meta(min_length=1, extra_json_schema={"uniqueItems": True})] = (Phase.INPUT,)
    names: frozenset[str] = frozenset()
    numbers: list[int] = []
    inner: Inner = Inner("x")
    inners: Annotated[tuple[Inner, ...], Meta(extra_json_schema={"x-unique-by": "id"})] = ()
    either: str | Inner | list[int] = ""
    table: dict[Annotated[str, Meta(pattern="^[a-z]+$")], int] = {}


def decode(text: str, registry: Registry) -> tuple[Everything | None, list[str]]:
    document = parse(text.encode(), "f")
    assert document.root is not None
    value = Decoder(document, registry).struct(document.root, Everything)
    return value, [str(problem).removeprefix("f:") for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("text: hello", "text", "hello"),
        ("text: 2024-10-21", "text", "2024-10-21"),
        ("text: '010'", "text", "010"),
        ('text: "no"', "text", "no"),
        ("text: ''", "text", ""),
        ("text: 1.0.0", "text", "1.0.0"),
        ("text: !!str 12", "text", "12"),
        ("text: |\n  a\n", "text", "a\n"),
        ("text: '~'", "text", "~"),
        ("switch: true", "switch", True),
        ("switch: false", "switch", False),
        ("count: 9", "count", 9),
        ("number: 3", "number", 3.0),
        ("number: 0.5", "number", 0.5),
        ("number: 1.5e0", "number", 1.5),
        ("maybe: ~", "maybe", None),
        ("maybe:", "maybe", None),
        ("maybe: -7", "maybe", -7),
        ("phase: output", "phase", Phase.OUTPUT),
        ("several: [output, input]", "several", (Phase.OUTPUT, Phase.INPUT)),
        ("names: [b, a]", "names", frozenset("ab")),
        ("numbers: []", "numbers", []),
        ("inner: {id: y}", "inner", Inner("y")),
        ("inners: [{id: a}, {id: b, size: 2}]", "inners", (Inner("a"), Inner("b", 2))),
        ("inners: [&one {id: a, size: 3}, {<<: *one, id: b}]", "inners", (Inner("a", 3), Inner("b", 3))),
        ("either: word", "either", "word"),
        ("either: {id: z}", "either", Inner("z")),
        ("either: [1, 2]", "either", [1, 2]),
        ("table: {a: 1, b: 2}", "table", {"a": 1, "b": 2}),
        ("table: {on: 1}", "table", {"on": 1}),
        ("loose: abc", "loose", "abc"),
    ],
)
def test_takes(text: str, field: str, value: object, registry: Registry) -> None:
    decoded, problems = decode(text, registry)
    assert problems == []
    assert getattr(decoded, field) == value
    assert type(getattr(decoded, field)) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # YAML 1.1 reads these as something else than they look like.
        ("text: no", '1:7: error: text: expected text, got a switch: `no` (put it in quotes: "no")'),
        ("text: 1.0", '1:7: error: text: expected text, got a number: `1.0` (put it in quotes: "1.0")'),
        ("text: 1:30", '1:7: error: text: expected text, got a number: `1:30` (put it in quotes: "1:30")'),
        ("text: 010", '1:7: error: text: expected text, got a number: `010` (put it in quotes: "010")'),
        ("switch: yes", "1:9: error: switch: expected true or false, got a switch: `yes` (write `true`)"),
        ("switch: Off", "1:9: error: switch: expected true or false, got a switch: `Off` (write `false`)"),
        ("switch: 'true'", "1:9: error: switch: expected true or false, got text"),
        ("switch: 1", "1:9: error: switch: expected true or false, got a number: `1`"),
        ("count: 0o10", f"1:8: error: count: expected a whole number, got text {DIGITS}"),
        ("count: 010", f"1:8: error: count: expected a whole number, got a number: `010` {DIGITS}"),
        ("count: 0x1", f"1:8: error: count: expected a whole number, got a number: `0x1` {DIGITS}"),
        ("count: 1_0", f"1:8: error: count: expected a whole number, got a number: `1_0` {DIGITS}"),
        (
            "count: 1:30",
            "1:8: error: count: expected a whole number, got a number: `1:30` (write plain decimal digits)",
        ),
        ("count: +1", f"1:8: error: count: expected a whole number, got a number: `+1` {DIGITS}"),
        ("count: 1.0", f"1:8: error: count: expected a whole number, got a number: `1.0` {DIGITS}"),
        ("count: '1'", "1:8: error: count: expected a whole number, got text"),
        (
            "count: true",
            "1:8: error: count: expected a whole number, got a switch: `true` (write plain decimal digits)",
        ),
        ("number: .inf", "1:9: error: number: expected a number, got a number: `.inf` (write a plain decimal number)"),
        ("number: .nan", "1:9: error: number: expected a number, got a number: `.nan` (write a plain decimal number)"),
        # Bounds
        ("count: 0", "1:8: error: count: 0 is out of range: it must be at least 1"),
        ("count: 10", "1:8: error: count: 10 is out of range: it must be at most 9"),
        ("number: 0", "1:9: error: number: 0 is out of range: it must be more than 0"),
        ("number: 10", "1:9: error: number: 10 is out of range: it must be less than 10"),
        ("text: 123456789ab", "1:7: error: text: at most 10 characters may stand here"),
        ("several: []", "1:10: error: several: at least 1 item must stand here"),
        # Forms
        ("coded: A", "1:8: error: coded: `A` does not have the right form (like `abc`)"),
        ('coded: "a\\n"', r"1:8: error: coded: `a\n` does not have the right form (like `abc`)"),
        ("loose: a", "1:8: error: loose: `a` does not have the right form (the pattern is b)"),
        ("network: 10.0.0.1/8", "1:10: error: network: 10.0.0.1/8 has host bits set"),
        ("table: {A: 1}", "1:9: error: table.A: `A` does not have the right form (the pattern is ^[a-z]+$)"),
        # Words
        ("phase: imput", "1:8: error: phase: unknown value `imput` (did you mean `input`?)"),
        ("phase: x", "1:8: error: phase: unknown value `x` (known: input, output)"),
        ("phase: no", "1:8: error: phase: expected one of `input`, `output`, got a switch: `no`"),
        ("cuont: 1", "1:1: error: cuont: unknown key `cuont` (did you mean `count`?)"),
        ("inner: {id: x, SIZE: 1}", "1:16: error: inner.SIZE: unknown key `SIZE` (did you mean `size`?)"),
        # Shapes
        ("inner: {}", "1:8: error: inner: the required key `id` is missing"),
        ("inner: [x]", "1:8: error: inner: expected a mapping, got a list"),
        ("inner: x", "1:8: error: inner: expected a mapping, got text"),
        ("inner:", "1:7: error: inner: expected a mapping, got nothing (give it a value or remove the key)"),
        ("text:", "1:6: error: text: expected text, got nothing (give it a value or remove the key)"),
        ("text: {}", "1:7: error: text: expected text, got a mapping"),
        ("numbers: 1", "1:10: error: numbers: expected a list, got a number: `1`"),
        ("table: []", "1:8: error: table: expected a mapping, got a list"),
        ("either: 1", "1:9: error: either: expected text or a mapping or a list, got a number: `1`"),
        ("maybe: x", f"1:8: error: maybe: expected a whole number, got text {DIGITS}"),
        ("- text", "1:1: error: expected a mapping, got a list"),
        # Together
        ("inner: {id: x, size: 13}", "1:8: error: inner: nobody wants 13"),
        ("several: [input, input]", "1:18: error: several[1]: duplicate `input`: `several[0]` on line 1 has it too"),
        ("names: [a, a]", "1:12: error: names[1]: duplicate `a`: `names[0]` on line 1 has it too"),
        (
            "inners:\n- id: a\n- id: a",
            "3:7: error: inners[1].id: duplicate id `a`: `inners[0]` on line 2 has it too",
        ),
    ],
)
def test_refuses(text: str, problem: str, registry: Registry) -> None:
    decoded, problems = decode(text, registry)
    assert decoded is None
    assert problems == [problem]


def test_a_value_that_may_be_a_secret_is_not_repeated(registry: Registry) -> None:
    _, problems = decode("secret: sk-abc\ninner: sk-abc\ncount: sk-abc\nnumbers: sk-abc", registry)
    assert len(problems) == 4
    assert "sk-abc" not in "".join(problems)


def test_a_long_value_is_cut(registry: Registry) -> None:
    _, problems = decode(f"coded: {'A' * 500}", registry)
    assert problems == [f"1:8: error: coded: `{'A' * 57}...` does not have the right form (like `abc`)"]


def test_every_problem_is_found_at_once(registry: Registry) -> None:
    text = "text: no\ncount: 0\nphase: x\ninner: {size: x}\ninners: [{id: a, size: 13}, {id: a}, {}]\nwhat: 1\n"
    _, problems = decode(text, registry)
    assert [problem.split(" ")[2] for problem in problems] == [
        "text:",
        "count:",
        "phase:",
        "inner.size:",
        "inner:",
        "inners[0]:",
        "inners[2]:",
        "inners[1].id:",
        "what:",
    ]


def test_a_setting_of_a_type_that_no_file_can_hold_is_a_bug_and_not_the_operators_fault(registry: Registry) -> None:
    class Odd(Struct):
        when: bytes = b""

    document = parse(b"when: x", "f")
    assert document.root is not None
    with pytest.raises(TypeError, match="when"):
        Decoder(document, registry).struct(document.root, Odd)
