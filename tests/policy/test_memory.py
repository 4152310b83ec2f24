"""Placeholders of a conversation: one value, one placeholder, and never one placeholder for two values."""

from __future__ import annotations

from policy.restore import Memory


def test_a_value_keeps_its_placeholder() -> None:
    memory = Memory()
    assert memory.adopt({"a": "I am <NAME_1>"}, {"<NAME_1>": "Ada"}) == {"a": "I am <NAME_1>"}
    assert memory.adopt({"b": "<NAME_1> knows <NAME_2>"}, {"<NAME_1>": "Bob", "<NAME_2>": "Ada"}) == {
        "b": "<NAME_3> knows <NAME_1>"
    }
    assert memory.originals == {"<NAME_1>": "Ada", "<NAME_3>": "Bob"}
    assert memory.adopt({"c": "<NAME_1>"}, {"<NAME_1>": "Bob"}) == {"c": "<NAME_3>"}


def test_what_a_user_typed_is_no_placeholder() -> None:
    memory = Memory()
    memory.adopt({"a": "<NAME_1>"}, {"<NAME_1>": "Ada"})
    # The policy has passed over <NAME_1>, which is typed here, and over the numbers up to it.
    assert memory.adopt({"b": "<NAME_3> types <NAME_2>"}, {"<NAME_3>": "Bob"}) == {"b": "<NAME_3> types <NAME_2>"}
    assert memory.adopt({"c": "<NAME_1> types <NAME_2>"}, {"<NAME_1>": "Eve"}) == {"c": "<NAME_4> types <NAME_2>"}


def test_labels_are_counted_apart() -> None:
    memory = Memory()
    memory.adopt({"a": "<NAME_1>"}, {"<NAME_1>": "Ada"})
    assert memory.adopt({"b": "<EMAIL_ADDRESS_1>"}, {"<EMAIL_ADDRESS_1>": "a@b.c"}) == {"b": "<EMAIL_ADDRESS_1>"}


def test_nothing_that_comes_back_changes_nothing() -> None:
    memory = Memory()
    assert memory.adopt({"a": "[REDACTED]"}, {}) == {"a": "[REDACTED]"}
    assert memory.originals == {}
