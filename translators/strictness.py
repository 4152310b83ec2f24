"""`strict_translation: true`: what a provider's format cannot express whole is refused instead of being left out.

It stands around another translation and looks only at its notes. Made when a configuration is compiled, so that a
gateway without the setting does not pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import InvalidRequest
from translators.dialect import RequestView, Translated, Translation


class Strict:
    """A Translation that refuses what it would have to note."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self.identity = translation.identity
        self.wire = translation.wire
        self.stream_media = translation.stream_media
        self.view = translation.view
        self.answer = translation.answer
        self.read = translation.read
        self.usage = translation.usage
        self.plain = translation.plain
        self.error = translation.error
        self.stream = translation.stream
        self.tap = translation.tap

    def request(
        self, body: bytes, view: RequestView, *, model: str, replacements: Mapping[int, str], meter: bool
    ) -> Translated:
        """The provider's request. Raises InvalidRequest with every path that it would not carry as it was."""
        translated = self._translation.request(body, view, model=model, replacements=replacements, meter=meter)
        if translated.notes:
            raise InvalidRequest(
                f"The provider of this model cannot be asked all of this: {'; '.join(translated.notes)}. Leave it out,"
                " or ask a model whose provider knows it; this gateway drops nothing (strict_translation).",
                param=translated.notes[0].partition(": ")[0],
            )
        return translated
