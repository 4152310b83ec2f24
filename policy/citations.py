"""Citations in an answer: where they are, what they point at, and what they are said to support.

Read are `[1]`, `[1, 2]`, `[1-3]`, `[^1]`, `[doc1]`, `【1†source】`, `(Author, 2023)`, Markdown and bare links, but not
what stands in code. They point at sources, which are texts of the request itself: those that carry a number
(`[1] …`, `Source 2: …`, `<document index="3">`), or else the tool results and documents in their order. A list of
references at the end of the answer gives its numbers a link or a title each. Nothing is fetched: a link is known if the
request has it, or if its host is on the operator's list.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MAX_CITATIONS: Final = 200
"""So many citations of one answer are judged: nobody reads more."""

MAX_RANGE: Final = 50
"""`[1-50]` cites fifty sources; a longer range is taken for something else, such as years."""

LONGEST_QUOTE: Final = 2000
SHINGLE: Final = 5

_CODE = re.compile(r"```.{0,20000}?(?:```|\Z)|`[^`\n]{1,400}`", re.DOTALL)
_NUMBERED = re.compile(
    r"\[\^?((?:doc|source|ref)?\s?\d{1,3}(?:\s?[,;–-]\s?\^?(?:doc|source|ref)?\s?\d{1,3}){0,20})\](?!\()"
    r"|【(\d{1,3})(?::\d{1,3})?†[^】\n]{0,80}】",
    re.IGNORECASE,
)
_AUTHORED = re.compile(
    r"\(((?:[A-Z][\w'’-]+(?:,? (?:and|&|et al\.?,?) ?(?:[A-Z][\w'’-]+)?)?,? \(?(?:1[89]|20)\d\d[a-z]?(?:; )?){1,8})\)"
)
_AUTHOR = re.compile(r"([A-Z][\w'’-]+)[^;]*?((?:1[89]|20)\d\d)")
_LINK = re.compile(r"https?://[^\s<>\"'`\])}|\\^]{1,2000}")
_REFERENCE = re.compile(r"^[ \t]*(?:[-*] )?\[\^?(\d{1,3})\][:.]?[ \t]*(\S.*)$", re.MULTILINE)
_LABELLED = re.compile(
    r"^[ \t]*(?:\[\^?(?:doc|source|ref|document)?\s?#?(\d{1,3})\]|(?:document|source|passage|doc|result|reference|"
    r"context)"
    r"\s?#?\[?(\d{1,3})\]?\s?[:.)\]-]|<(?:document|source|doc)\b[^>\n]{0,200}?\b(?:index|"
    r"id)=[\"']?(\d{1,3})[\"']?[^>\n]{0,200}>)",
    re.MULTILINE | re.IGNORECASE,
)
_MARK = r"(?:\[\^?(?:doc|source|ref)?\s?\d[^\]\n]{0,40}\]|【[^】\n]{1,80}】)"
_STATEMENT_END = re.compile(
    rf"(?:[.!?][\"”’)*_]{{0,4}}(?:[ \t]?{_MARK}){{0,12}}(?=\s|$)|[。！？][”’」）]{{0,4}}(?:{_MARK}){{0,12}}|\n)\n*"
)
_QUOTED = re.compile(r"“([^“”]{1,2000})”|\"([^\"\n]{1,2000})\"|«([^«»]{1,2000})»|„([^„“”]{1,2000})[“”]")
_ELISION = re.compile(r"\[[^\]]{0,40}\]|\.{3}|…")
_WORDS = re.compile(r"\w+")


class Source(NamedTuple):
    """A text that an answer may cite. `number` is its own label, if it carries one; `document` says that it was given
    as one: a tool result or a document."""

    text: str
    number: int | None = None
    document: bool = True


class Citation(NamedTuple):
    """One citation. `keys` are what it points at: `#3`, `https://…`, or `Author 2023`."""

    start: int
    end: int
    keys: tuple[str, ...]


class Statement(NamedTuple):
    """A sentence with its citations; offsets count characters of the answer."""

    start: int
    end: int
    citations: tuple[Citation, ...]


class Quote(NamedTuple):
    """A passage in quotation marks, without them."""

    start: int
    end: int
    text: str


def parse(answer: str) -> tuple[Citation, ...]:
    """All citations of an answer, in order of place."""
    found = sorted(_parsed(_without_code(answer)))
    kept: list[Citation] = []
    for citation in found[: 4 * MAX_CITATIONS]:
        if not kept or citation.start >= kept[-1].end:
            kept.append(citation)
    return tuple(kept[:MAX_CITATIONS])


def _without_code(text: str) -> str:
    """Code is blanked, so that `row[1]` cites nothing and offsets stay."""
    return _CODE.sub(lambda code: " " * len(code[0]), text) if "`" in text else text


def _parsed(text: str) -> Iterator[Citation]:
    for mark in _NUMBERED.finditer(text):
        if numbers := _numbers(mark[1] or mark[2]):
            yield Citation(mark.start(), mark.end(), tuple(f"#{number}" for number in numbers))
    for mark in _AUTHORED.finditer(text):
        keys = tuple(f"{name} {year}" for name, year in _AUTHOR.findall(mark[1]))
        yield Citation(mark.start(), mark.end(), keys)
    for mark in _LINK.finditer(text):
        link = mark[0].rstrip(".,;:!?*_")
        yield Citation(mark.start(), mark.start() + len(link), (link,))


def _numbers(inside: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for piece in re.split(r"[,;]", inside):
        ends = [int(number) for number in re.findall(r"\d+", piece)]
        if len(ends) == 2:
            if not 0 <= ends[1] - ends[0] < MAX_RANGE:
                return ()
            numbers += range(ends[0], ends[1] + 1)
        else:
            numbers += ends
    return tuple(numbers)


def statements(answer: str, citations: Sequence[Citation]) -> Iterator[Statement]:
    """The sentences of an answer that hold a word, each with the citations in it or right behind it."""
    text = _without_code(answer)
    listed = _references_start(text)
    start = number = 0
    for end in [*(boundary.end() for boundary in _STATEMENT_END.finditer(text)), len(text)]:
        own = []
        while number < len(citations) and citations[number].start < end:
            own.append(citations[number])
            number += 1
        if start < listed and _WORDS.search(_blanked(text, start, end, own)):
            yield Statement(start, end, tuple(own))
        start = end


def _references_start(text: str) -> int:
    """Where the list of references at the end of an answer begins; the answer's end if it has none."""
    start = len(text)
    for entry in reversed(list(_REFERENCE.finditer(text))):
        if text[entry.end() : start].strip():
            break
        start = entry.start()
    return start


def _blanked(text: str, start: int, end: int, citations: Iterable[Citation]) -> str:
    """A stretch of the answer without its citations."""
    pieces = []
    for citation in citations:
        pieces.append(text[start : citation.start])
        start = max(start, citation.end)
    return " ".join([*pieces, text[start:end]])


def wording(answer: str, statement: Statement) -> str:
    """What a statement says, without its citations."""
    return _blanked(answer, statement.start, statement.end, statement.citations)


def labelled(text: str) -> list[Source]:
    """The numbered passages of a text; none if it does not number any."""
    marks = list(_LABELLED.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)] if marks else []
    return [
        Source(text[mark.end() : end], int(mark[1] or mark[2] or mark[3]))
        for mark, end in zip(marks, ends, strict=True)
    ]


class Sources:
    """What an answer may point at."""

    def __init__(self, texts: Sequence[Source], answer: str = "", known_hosts: Collection[str] = ()) -> None:
        self.texts = [text.text for text in texts]
        self._hosts = frozenset(known_hosts)
        self._numbered: dict[int, list[str]] = {}
        for source in texts:
            for passage in labelled(source.text):
                assert passage.number is not None
                self._numbered.setdefault(passage.number, []).append(passage.text)
        if not self._numbered:
            documents = [source.text for source in texts if source.document]
            self._numbered = {number: [text] for number, text in enumerate(documents, 1)}
        answer = _without_code(answer)
        references = _REFERENCE.findall(answer, _references_start(answer))
        self._listed = {int(number): entry for number, entry in references}
        self._by_link: dict[str, list[str]] | None = None

    @property
    def given(self) -> bool:
        """The request has passages or documents to cite."""
        return bool(self._numbered)

    def passages(self, key: str) -> list[str] | None:
        """The texts that a citation's key stands for; empty if they are not at hand; None if it points at nothing."""
        if key.startswith("#"):
            return self._of_number(int(key[1:]))
        if key.startswith("http"):
            return self._of_link(key)
        name, _, year = key.rpartition(" ")
        found = [text for text in self.texts if _are_near(text, name, year)]
        return found or None

    def _of_number(self, number: int) -> list[str] | None:
        entry = self._listed.get(number)
        if number in self._numbered:
            return self._numbered[number]
        if entry is None:
            return None
        link = _LINK.search(entry)
        if link is not None:
            return self._of_link(link[0].rstrip(".,;:!?*_"))
        title = normal(entry)
        found = [text for text in self.texts if title and title in normal(text)]
        return found or None

    def _of_link(self, link: str) -> list[str] | None:
        if self._by_link is None:
            self._by_link = {}
            for text in self.texts:
                for seen in _LINK.findall(text):
                    self._by_link.setdefault(_address(seen), []).append(text)
        known = self._by_link.get(_address(link))
        if known is not None:
            return known
        return [] if _is_known(_host(link), self._hosts) else None


def _are_near(text: str, name: str, year: str) -> bool:
    at = text.find(name)
    while at >= 0:
        if year in text[max(0, at - 200) : at + 200]:
            return True
        at = text.find(name, at + 1)
    return False


def _address(link: str) -> str:
    """A link without what does not change where it leads."""
    link = link.rstrip(".,;:!?*_").partition("://")[2].partition("#")[0].rstrip("/")
    host, slash, path = link.partition("/")
    return host.lower().removeprefix("www.") + slash + path


def _host(link: str) -> str:
    try:
        return urlsplit(link).hostname or ""
    except ValueError:
        return ""


def _is_known(host: str, hosts: Collection[str]) -> bool:
    """A host on the list, or a subdomain of one."""
    return any(host == known or host.endswith("." + known) for known in hosts)


def quotes(answer: str, least_words: int) -> Iterator[Quote]:
    """Passages in quotation marks of at least so many words."""
    for quoted in _QUOTED.finditer(_without_code(answer)):
        group = quoted.lastindex or 1
        if len(_WORDS.findall(quoted[group])) >= least_words:
            yield Quote(quoted.start(group), quoted.end(group), quoted[group])


def quote_share(quote: str, occurs: Callable[[str], bool]) -> float:
    """How much of a quotation is found: 1 if each stretch between its elisions occurs as it stands, else the share of
    its runs of five words. `occurs` says whether a normalised stretch is in the source."""
    stretches = [words for part in _ELISION.split(quote) if (words := normal(part).split())]
    if all(occurs(" ".join(words)) for words in stretches):
        return 1.0
    runs = [words[n : n + SHINGLE] for words in stretches for n in range(max(1, len(words) - SHINGLE + 1))]
    return sum(occurs(" ".join(run)) for run in runs) / (len(runs) + 0.001)


def normal(text: str) -> str:
    """The words of a text, one space apart: without case, punctuation, and differences of form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("’", "")
    return " ".join(_WORDS.findall(text.casefold().replace("'", "")))


def finder(texts: Iterable[str]) -> Callable[[str], bool]:
    """Whether some words stand in one of the texts, whole and in this order."""
    haystack = [f" {normal(text)} " for text in texts]
    return lambda words: any(f" {words} " in text for text in haystack)
