"""Named defects of an answer that can be seen without understanding it.

Each check says in a few words what it saw, never with a piece of the answer, and an empty text if there is nothing.
They are pure functions of texts and take together well under a millisecond for 4 KB. None says that an answer is good
or right: on hand-rated answers no such rule is better than chance.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import re2

from policy.grounding import stems, weight

MAX_CHARACTERS: Final = 16 * 1024
"""So much of an answer is looked at for repetition and echoes."""

LAST_CHARACTERS: Final = 3072
"""Whoever has begun to repeat goes on to the end, so runs of words are looked for there."""

LIMIT_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "MAX_TOKENS"})
"""How providers say that an answer was cut off at its greatest length."""

_WORD = re.compile(r"\w+")
_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)
# RE2 rather than `re` for these two: 15 µs instead of 150 and 350 for 4 KB.
_MARKERS = re2.compile(
    r"(?m)<\|(?:im_start|im_end|endoftext|end_of_turn|eot_id|start_header_id|end_header_id|begin_of_text|assistant|user|"
    r"system|end|eom_id|fim_\w{3,6})\|>|\[/?INST\]|<</?SYS>>|\A<s>|</s>\s*\z|<(?:start|end)_of_turn>|"
    r"^#{2,3} ?(?:Instruction|Response|Input|Human|Assistant):|"
    r"^(?:Human|Assistant|User): .*\n+(?:Human|Assistant|User): "
)
_PLACEHOLDERS = re2.compile(
    r"(?i)\[(?:Your|Insert|Enter|Company|Recipient|Client|Customer|First|Last|Full)(?: [A-Za-z'/ -]{2,40}| ?Name)\]|"
    r"\[(?:Name|Date|Address|Company|Email|Phone|City|Title|Position)\](?:[^(]|$)|\{\{ ?\w{1,40} ?\}\}|"
    r"<(?:insert|your)[ _-][\w -]{1,40}>|\blorem ipsum\b|\bTODO\b|\bXX+[%/]"
)
_OPENING = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = re.compile(r"[()\[\]{}]")
_COUNT = re.compile(
    r"\b(?:list|name|give|write|provide|suggest|generate|create|tell me|show|find|brainstorm|come up with)\b"
    r"(?: \w+){0,3}? (\d{1,2}|two|three|four|five|six|seven|eight|nine|ten)\b (?!words|sentences|paragraphs|"
    r"characters|lines|pages|percent|-|dollars|minutes|hours|days|months|years|pounds)",
    re.IGNORECASE,
)
_ITEM = re.compile(r"^[ \t]{0,8}(?:[*_]{0,2}\d{1,2}[.)]|[-*•+])[*_]{0,2}\s", re.MULTILINE)
_NUMBERS = {
    word: number
    for number, word in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 2)
}


def too_short(answer: str, least_characters: int) -> str:
    """The answer is empty or shorter than asked for."""
    length = len(answer.strip())
    if not length:
        return "empty"
    return f"{length} of {least_characters} characters" if length < least_characters else ""


def cut_off(answer: str, finish_reason: str = "") -> str:
    """The answer ends in the middle."""
    if finish_reason in LIMIT_REASONS:
        return "ended at the greatest length"
    text = answer.rstrip()
    if len(_FENCE.findall(text)) % 2:
        return "open code fence"
    last = text.rpartition("\n")[2]
    prose = [line for line in text.splitlines() if len(line) > 60 and line.rstrip()[-1:] in ".!?:\"'”’)。！？"]
    enough = len(prose) > 1 or re.search(r"[.!?。！？]\s", last) is not None
    if enough and len(last) > 60 and (last[-1].isalnum() or last[-1] in ",;-–(") and not _ITEM.match(last + " "):
        return "open bracket" if _open_bracket(last) else "the last sentence has no end"
    return ""


def _open_bracket(line: str) -> bool:
    stack: list[str] = []
    for bracket in _BRACKETS.findall(line):
        if bracket in _OPENING:
            stack.append(_OPENING[bracket])
        elif stack and stack[-1] == bracket:
            stack.pop()
    return bool(stack)


def repetition(answer: str) -> str:
    """The answer says the same again and again."""
    text = answer[:MAX_CHARACTERS]
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 15]
    if len(lines) >= 4 and max(Counter(lines).values()) >= max(3, 0.3 * len(lines)):
        return "lines"
    words = _WORD.findall(text[-LAST_CHARACTERS:].lower())
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    if len(runs) >= 30:
        return "runs of words" if len(set(runs)) < 0.6 * len(runs) else ""
    data = text.encode("utf-8", "replace")
    if len(data) >= 200 and len(zlib.compress(data, 1)) < 0.12 * len(data):
        return "compresses to less than an eighth"
    return ""


def markers(answer: str) -> str:
    """Marks of a prompt template, or another speaker's turn, stand in the answer."""
    return "template marks" if _MARKERS.search(answer) else ""


def echo(answer: str, question: str) -> str:
    """The answer repeats the prompt."""
    asked, said = " ".join(question.split()), " ".join(answer[:MAX_CHARACTERS].split())
    if len(asked) < 40:
        return ""
    if said.count(asked[:400]) >= 2 or (said.startswith(asked[:400]) and len(said) < 1.3 * len(asked)):
        return "the prompt, word for word"
    return ""


def placeholder(answer: str) -> str:
    """Something was left to be filled in."""
    return "to be filled in" if _PLACEHOLDERS.search(answer) else ""


def broken_json(answer: str) -> str:
    """The answer should be JSON and is not; a code fence around it is forgiven."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    return ""


def wrong_count(answer: str, question: str) -> str:
    """The prompt asks for a number of things, and the answer lists another number of them."""
    asked = _COUNT.search(question[:2000])
    if asked is None:
        return ""
    wanted = _NUMBERS.get(asked[1].lower()) or int(asked[1])
    items = len(_ITEM.findall(answer))
    return f"{items} of {wanted} items" if wanted >= 2 and 2 <= items < wanted else ""


def off_topic(answer: str, questions: Sequence[str]) -> str:
    """None of the prompt's words of weight occurs in an answer of some length."""
    asked = {word for question in questions for word in stems(question[:2000]) if weight(word) >= 2}
    said = answer[:MAX_CHARACTERS].lower()
    if len(asked) < 4 or len(said) < 200:
        return ""
    return "" if any(word in said for word in asked) else "no word of the prompt"
