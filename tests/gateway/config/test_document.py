"""YAML in its form: what cannot be read at all, and where it says so."""

from __future__ import annotations

import pytest
import yaml

from gateway.config import document
from gateway.config.document import MAX_BYTES, MAX_NODES, join, parent, parse
from gateway.config.problems import ConfigurationInvalid

LAUGHS = b"\n".join(
    b"%c: &%c [%b]" % (name, name, b", ".join([b"*%c" % (name - 1)] * 10) if name > ord("a") else b"x")
    for name in b"abcdefg"
)

UNREADABLE = {
    "a flow list that ends early": (b"a: [", "not valid YAML"),
    "a mapping in a mapping's line": (b"a: b: c", "f:1:5: error: not valid YAML: mapping values are not allowed"),
    "a tab": (b"a:\n\tb: 1", "(indent with spaces, not with tabs)"),
    "an at sign": (b"a: @x", "(put the value in quotes)"),
    "an open quote": (b"a: 'x", "not valid YAML: found unexpected end of stream"),
    "an unknown alias": (b"a: *b", "f:1:4: error: not valid YAML: found undefined alias"),
    "NUL": (b"a: 1\nb: \x00", "f:2:4: error: the character U+0000 may not stand in YAML"),
    "an escape character": (b"a: \x1b[31m", "f:1:4: error: the character U+001B may not stand in YAML"),
    "Latin-1": ("a: 1\nbé: ü".encode("latin-1"), "f:2:2: error: the file is not UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), "f:1:1: error: the file is not UTF-8"),
    "two documents": (b"a: 1\n---\nb: 2", "f:2:1: error: only one document may stand in a file"),
    "an object of Python": (
        b"a: !!python/object/apply:os.system [x]",
        "f:1:4: error: the tag `!!python/object/apply:os.system` is not supported",
    ),
    "an application's tag": (b"a: !secret x", "f:1:4: error: the tag `!secret` is not supported"),
    "binary": (b"a: !!binary aGk=", "f:1:4: error: the tag `!!binary` is not supported"),
    "a set": (b"a: !!set {x}", "f:1:4: error: the tag `!!set` is not supported"),
    "depth in flow": (b"[" * 100_000, "f:1:33: error: nested deeper than 32 levels"),
    "depth in blocks": (b"- " * 100_000, "f:1:65: error: nested deeper than 32 levels"),
    "depth of mappings": (b"{a: " * 50_000, "error: nested deeper than 32 levels"),
    "a list that holds itself": (b"a: &a [*a]", "f:1:4: error: the aliases expand to more than"),
    "a mapping that holds itself": (b"&a {a: *a}", "f:1:1: error: the aliases expand to more than"),
    "a billion laughs": (LAUGHS, "the aliases expand to more than"),
    "too many values": (b"- 1\n" * (2 * MAX_NODES + 1), f"the file has more than {MAX_NODES} values"),
    "too many bytes": (b"#" * (MAX_BYTES + 1), f"f: error: the file is larger than {MAX_BYTES} bytes"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_said_at_its_place(case: str) -> None:
    text, expected = UNREADABLE[case]
    with pytest.raises(ConfigurationInvalid) as caught:
        parse(text, "f")
    assert expected in str(caught.value)


@pytest.mark.parametrize("case", [case for case in UNREADABLE if not case.startswith("too many")])
def test_the_python_parser_finds_the_same_places(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = UNREADABLE[case]
    with pytest.raises(ConfigurationInvalid) as fast:
        parse(text, "f")
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    with pytest.raises(ConfigurationInvalid) as slow:
        parse(text, "f")
    assert slow.value.problems[0].path == fast.value.problems[0].path
    if case != "a flow list that ends early":
        # Where a file simply ends, one parser means the last character and the other the one after it.
        assert slow.value.problems[0].place == fast.value.problems[0].place


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# nothing\n", "\ufeff".encode()])
def test_an_empty_file_has_no_root(text: bytes) -> None:
    assert parse(text, "f").root is None


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    found = parse("\ufeffa: 1".encode(), "f")
    assert [key.value for key, _ in found.pairs(found.root, "")] == ["a"]


def pairs(text: str) -> tuple[dict[str, str], list[str]]:
    found = parse(text.encode(), "f")
    values = {key.value: getattr(value, "value", None) for key, value in found.pairs(found.root, "")}
    return values, [str(problem) for problem in found.problems]


def test_a_key_that_stands_twice_is_reported_and_the_first_one_kept() -> None:
    values, problems = pairs("a: 1\nb: 2\na: 3\n")
    assert values == {"a": "1", "b": "2"}
    assert problems == ["f:3:1: error: a: the key `a` stands twice (first on line 1)"]


def test_a_key_must_be_a_word() -> None:
    values, problems = pairs("? [a]\n: 1\nb: 2\n")
    assert values == {"b": "2"}
    assert problems == ["f:1:3: error: a key must be a word, not a list or a mapping"]


def test_keys_are_text_whatever_yaml_would_make_of_them() -> None:
    assert pairs("on: 1\n0x1F: 2\n") == ({"on": "1", "0x1F": "2"}, [])


def test_merge_keys_add_what_the_mapping_itself_does_not_say() -> None:
    text = "<<: [{a: 1, b: 1}, {b: 2, c: 2}]\nc: 3\n"
    assert pairs(text) == ({"c": "3", "a": "1", "b": "1"}, [])


def test_only_a_mapping_can_be_merged() -> None:
    assert pairs("<<: [x]\na: 1")[1] == ["f:1:6: error: only a mapping can be merged in with `<<`"]


def test_a_problem_cannot_drive_the_terminal_or_forge_a_line() -> None:
    _, problems = pairs('"a\\e[31m\\nb": 1\n"a\\e[31m\\nb": 1\n')
    assert problems == [r"f:2:1: error: a\x1b[31m\nb: the key `a\x1b[31m\nb` stands twice (first on line 1)"]


def test_paths() -> None:
    assert join(join(join("", "policies"), "chain"), 0) == "policies.chain[0]"
    assert parent("policies.chain[0]") == "policies.chain"
    assert parent("policies.chain") == "policies"
    assert parent("policies") == ""
