"""Redaction for a time: values leave as placeholders and come back in the answer.

`Placeholders` numbers values, `<EMAIL_1>`, the same for the same value, and never takes a placeholder that a text of
the request contains already: whoever types `<EMAIL_1>` gets no other's value for it. `Restorer` puts the values back,
in a whole text or in one that flows; then it holds at most the beginning of a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import msgspec

from gateway.types import TextPart
from policy.base import Redaction
from policy.text import encode, in_json


class Placeholders:
    """The placeholders of one phase of an exchange."""

    def __init__(self) -> None:
        self.originals: dict[str, str] = {}
        """The values that are to come back, by their placeholders."""
        self._taken: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def place(self, texts: Sequence[TextPart], redactions: Iterable[Redaction]) -> list[Redaction]:
        """The redactions with placeholders where they have a label; numbered in order of place."""
        data = {one.part: encode(texts[one.part].text) for one in redactions if one.label}
        return [self._placed(one, data[one.part], texts) if one.label else one for one in sorted(redactions)]

    def _placed(self, one: Redaction, data: bytes, texts: Sequence[TextPart]) -> Redaction:
        value = data[one.start : one.end].decode("utf-8", "replace")
        placeholder = self._taken.get((one.label, value))
        if placeholder is None:
            placeholder = self._taken[one.label, value] = self._new(one, texts)
        if one.comes_back:
            self.originals[placeholder] = value
        return msgspec.structs.replace(one, replacement=placeholder)

    def _new(self, one: Redaction, texts: Sequence[TextPart]) -> str:
        while True:
            number = self._counts[one.label] = self._counts.get(one.label, 0) + 1
            placeholder = f"<{one.label}_{number}>"
            if not (one.comes_back and any(placeholder in part.text for part in texts)):
                return placeholder


class Memory:
    """The placeholders of a conversation, whose texts are judged one by one: each stands for one value throughout."""

    def __init__(self) -> None:
        self.originals: dict[str, str] = {}
        """All values that are to come back, by their placeholders."""
        self._placeholders: dict[tuple[str, str], str] = {}

    def adopt(self, texts: Mapping[str, str], originals: Mapping[str, str]) -> dict[str, str]:
        """The texts of one phase, by any names, with the placeholders that their values have in the conversation.

        `originals` are the phase's own, which stand in no text but by its making.
        """
        names = {one: self._name(one, value, texts) for one, value in originals.items()}
        self.originals.update({names[one]: value for one, value in originals.items()})
        if all(one == name for one, name in names.items()):
            return dict(texts)
        find = re.compile("|".join(map(re.escape, names)))
        return {key: find.sub(lambda found: names[found[0]], text) for key, text in texts.items()}

    def _name(self, placeholder: str, value: str, texts: Mapping[str, str]) -> str:
        label = placeholder[1:-1].rpartition("_")[0]
        known = self._placeholders.get((label, value))
        if known is not None:
            return known
        number = 1
        name = placeholder
        while name in self.originals or (name != placeholder and any(name in text for text in texts.values())):
            name = f"<{label}_{number}>"
            number += 1
        self._placeholders[label, value] = name
        self.originals[name] = value
        return name


class Restorer:
    """Puts the values of one request back into its answer."""

    __slots__ = ("_find", "_held", "_originals", "_prefixes")

    def __init__(self, originals: Mapping[str, str]) -> None:
        # Some encoders write `<` and `>` in JSON as escapes (Go's does): https://pkg.go.dev/encoding/json#Marshal
        escaped = {one.replace("<", "\\u003c").replace(">", "\\u003e"): value for one, value in originals.items()}
        self._originals = {**escaped, **originals}
        self._find = re.compile("|".join(map(re.escape, self._originals)))
        self._prefixes = frozenset(one[:size] for one in self._originals for size in range(1, len(one)))
        self._held: dict[Hashable, str] = {}

    def whole(self, text: str, *, json: bool = False) -> str:
        """A complete text with its values. `json`: it is JSON, as arguments of tools are."""
        if "<" not in text and "\\" not in text:
            return text
        return self._find.sub(lambda found: self._value(found[0], json), text)

    def feed(self, key: Hashable, text: str, *, json: bool = False) -> str:
        """More of one text; what of it may go on."""
        held = self._held.pop(key, "")
        if not held and "<" not in text and "\\" not in text:
            return text
        text = held + text
        cut = self._cut(text)
        if cut < len(text):
            self._held[key] = text[cut:]
        return self.whole(text[:cut], json=json)

    def close(self, key: Hashable) -> str:
        """One text is over: what of it waited."""
        return self._held.pop(key, "")

    def _value(self, placeholder: str, json: bool) -> str:
        value = self._originals[placeholder]
        return in_json(value) if json else value

    def _cut(self, text: str) -> int:
        """Where the beginning of a placeholder stands at the end of a text; its length where there is none."""
        longest = max(map(len, self._prefixes), default=0)
        for place in range(max(0, len(text) - longest), len(text)):
            if text[place] in "<\\" and text[place:] in self._prefixes:
                return place
        return len(text)
