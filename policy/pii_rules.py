"""What personal data looks like: for each entity a pattern that finds candidates, and a check that judges them.

The pattern is for the chain's one scan and is cheap rather than exact; the check sees a candidate with its surroundings
and says how sure it is, from 0 to 1, and where exactly the value stands. Checksums are those that the issuers publish
(ISO/IEC 7812-1 for cards, ISO 13616 for IBANs, …), by way of `python-stdnum`. Names, places and organisations are not
here: they need a language model, which no budget of microseconds allows.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from policy.base import Pattern
from policy.check_digits import is_valid
from policy.splits import GAP, joined


class Candidate(NamedTuple):
    """A match with what stands around it, as bytes of UTF-8; `before` and `after` are at most `BEFORE` and `AFTER`
    long."""

    value: bytes
    before: bytes
    after: bytes


class Finding(NamedTuple):
    """How sure the check is, and the part of the candidate that is the value."""

    confidence: float
    start: int
    end: int


Check = Callable[[Candidate], Finding | None]


class Entity(NamedTuple):
    """One kind of personal data. `keeps` is how many last characters a mask leaves readable."""

    label: str
    pattern: Pattern
    check: Check
    keeps: int = 0


BEFORE: Final = 64
"""Bytes before a candidate that a check may look at: about ten words."""
AFTER: Final = 16
"""Bytes after it: a word. In a stream that is checked as it flows they are waited for."""

_DIGITS: Final = re.compile(rb"\d")
_NOT_DIGITS: Final = bytes(byte for byte in range(256) if not 0x30 <= byte <= 0x39)


def _digits(value: bytes) -> str:
    return value.translate(None, _NOT_DIGITS).decode("ascii")


def _whole(candidate: Candidate, confidence: float) -> Finding:
    return Finding(confidence, 0, len(candidate.value))


def _words(*words: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?i)(?:^|[^a-z])(?:" + "|".join(words).encode() + rb")(?:$|[^a-z])")


# --- mail ------------------------------------------------------------------------------------------------------------


_NO_MAIL: Final = (b".local", b".localhost", b".invalid", b".internal")
"""Domains that mail does not leave, so that they name no person to anybody else: RFC 6761, RFC 6762."""


def _email(candidate: Candidate) -> Finding | None:
    """RFC 5321, section 4.1.2: a dot neither begins nor ends a local part, nor stands twice."""
    local, _, domain = candidate.value.rpartition(b"@")
    if b".." in candidate.value or local[:1] == b"." or local[-1:] == b"." or domain[:1] in (b".", b"-"):
        return None
    if domain.lower().endswith(_NO_MAIL):
        return None
    if candidate.before[-1:] in (b"/", b":") and candidate.before[-3:] == b"://":
        return None  # user and host of a URL
    return _whole(candidate, 0.95)


# --- payment cards ---------------------------------------------------------------------------------------------------

_CARD_LENGTHS: Final = (16, 15, 14, 13, 19, 18, 17, 12)
_CARD_PREFIX: Final = re.compile(r"4|5[1-5]|2[2-7]|3[0-9]|6|1800|2131|5[06-8]|8[16]|9792|0604")
_CARD_WORDS: Final = _words(
    *("card", "credit", "debit", "visa", "master ?card", "amex", "american express", "cc", "pan")
)


def _card(candidate: Candidate) -> Finding | None:
    """ISO/IEC 7812-1: an issuer's prefix and a check digit. Digits of something else may stand beside the number."""
    places = [match.start() for match in _DIGITS.finditer(candidate.value)]
    digits = _digits(candidate.value)
    for length in _CARD_LENGTHS:
        for first in range(len(digits) - length + 1):
            start, end = places[first], places[first + length - 1] + 1
            if _stands_alone(candidate.value, start, end) and _is_card(digits[first : first + length]):
                named = _CARD_WORDS.search(candidate.before) is not None
                if named or length > 12:  # Maestro's shortest numbers could be anything
                    return Finding(0.95 if named or length in (15, 16) else 0.7, start, end)
    return None


def _split_card(candidate: Candidate) -> Finding | None:
    """The same with one thing within the number that no card has: only 16 digits, or where a word says card."""
    digits, ends = joined(candidate.value)
    plain = _digits(digits)
    if len(digits) == len(candidate.value) or len(plain) not in (15, 16) or not _is_card(plain):
        return None
    named = _CARD_WORDS.search(candidate.before) is not None
    return Finding(0.9 if named else 0.6, 0, ends[-1]) if named or len(plain) == 16 else None


def _stands_alone(value: bytes, start: int, end: int) -> bool:
    return not value[start - 1 : start].isdigit() and not value[end : end + 1].isdigit()


def _is_card(number: str) -> bool:
    return _CARD_PREFIX.match(number) is not None and len(set(number)) > 1 and is_valid("luhn", number)


# --- United States: social security ----------------------------------------------------------------------------------

_SSN_WORDS: Final = _words(*("ssn", "social", "socialnum", "social security", "itin", "tax id", "taxpayer"))


def _us_ssn(candidate: Candidate) -> Finding | None:
    """SSA: no area 000 or 666, no group 00, no serial 0000. 9xx are the tax office's ITINs, personal just the same."""
    digits = _digits(candidate.value)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or group == "00" or serial == "0000" or len(set(digits)) < 3:
        return None
    named = _SSN_WORDS.search(candidate.before) is not None
    separators = {candidate.value[3:4], candidate.value[-5:-4]}
    if candidate.value.isdigit():
        return _whole(candidate, 0.85) if named else None
    if len(separators) > 1:
        return None
    return _whole(candidate, 0.95 if named else 0.85 if separators == {b"-"} else 0.6)


# --- bank accounts ---------------------------------------------------------------------------------------------------


def _iban(candidate: Candidate) -> Finding | None:
    """ISO 13616: length by country, and a remainder of 1 modulo 97. What follows may look like more of it."""
    text = candidate.value.decode("ascii")
    pieces = [match.end() for match in re.finditer(r"[A-Za-z0-9]+", text)]
    for end in reversed(pieces):
        compact = re.sub(r"[ -]", "", text[:end]).upper()
        if 15 <= len(compact) <= 34 and is_valid("iban", compact, check_country=False):
            return Finding(0.98, 0, end)
    return None


# --- network addresses -----------------------------------------------------------------------------------------------

_VERSION_WORDS: Final = re.compile(rb"(?i)(?:version|release|build|firmware|chapter|section|[^a-z]v|^v)[\s:=.]*$")


def _ipv4(candidate: Candidate) -> Finding | None:
    try:
        address = ipaddress.IPv4Address(candidate.value.decode("ascii"))
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved:
        return None
    if candidate.value.endswith(b".0") or _VERSION_WORDS.search(candidate.before):
        return None
    if candidate.before.endswith(b"://"):
        return _whole(candidate, 0.4)  # a server's, not a person's
    return _whole(candidate, 0.6 if address.is_private else 0.85)


def _ipv6(candidate: Candidate) -> Finding | None:
    """RFC 4291, section 2.2. `std::abs` and times of day look like addresses, too."""
    try:
        address = ipaddress.IPv6Address(candidate.value.decode("ascii"))
    except ValueError:
        return None
    groups = [group for group in candidate.value.split(b":") if group]
    if address.is_loopback or address.is_unspecified or len(groups) < 3:
        return None
    if b"::" in candidate.value and not any(_DIGITS.search(group) for group in groups):
        return None
    return _whole(candidate, 0.9)


# --- telephone -------------------------------------------------------------------------------------------------------

_PHONE_WORDS: Final = _words(
    *(
        "phone",
        "telephone",
        "tele",
        "tel",
        "phone ?num(?:ber)?",
        "telephone ?num(?:ber)?",
        "call",
        "calls",
        "calling",
        "dial",
        "mobile",
        "cell",
        "cellphone",
        "fax",
    ),
    *("contact", "contacts", "reach", "sms", "whatsapp", "text me", "ring", "hotline", "helpline"),
    *("answering at", "telefon", "handy", "rufen", "tél", "téléphone", "appelez", "teléfono", "llame", "móvil"),
    *("telefono", "cellulare", "telefone", "ligue"),
)
_PHONE_AFTER: Final = re.compile(rb"(?i)^[\s),(:-]{0,3}(?:office|fax|mobile|cell|home|work|phone|tel)(?:$|[^a-z])")
_OTHER_NUMBER: Final = re.compile(
    rb"(?i)(?:[$\xa3\xa5#=/.]|\xe2\x82\xac|usd|eur|gbp|no\.?|id|npi|mrn|isbn|issn|order|invoice|account|acct|case|ref"
    rb"|ticket|policy|routing|serial|version|part|sku|zip|postcode|port|page|line no|claim|record|licen[cs]e|passport"
    rb"|doi|cve|rfc|iso|number of)[\s:#.(-]*(?:number|num|no\.?|code)?[\s:#.(-]*$"
)
_DATE: Final = re.compile(
    rb"\(?(?:(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d|[0-3]?\d[-./ ][0-3]?\d[-./ ](?:19|20)\d\d)(?:\D.*)?"
)
_YEARS: Final = re.compile(rb"\(?(?:1[5-9]|20)\d\d ?[-/] ?(?:1[5-9]|20)?\d\d\)?")
_GROUPS: Final = re.compile(rb"\d+")


def _phone(candidate: Candidate) -> Finding | None:
    """ITU-T E.164: 7 to 15 digits. Without a word beside it that says telephone, only shapes that little else has."""
    value, before = candidate.value.rstrip(b" .-("), candidate.before
    number = re.split(rb"(?i)\s?(?:x|ext\.?)\s?", value)[0]
    digits = _digits(number)
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 2 or _DATE.fullmatch(number) or _YEARS.fullmatch(number):
        return None
    named = _PHONE_WORDS.search(before) is not None or _PHONE_AFTER.match(candidate.after) is not None
    if _OTHER_NUMBER.search(before) and not _PHONE_WORDS.search(before[-24:]):
        return None
    confidence = _phone_shape(number, digits, named)
    return Finding(confidence, 0, len(value)) if confidence else None


def _phone_shape(number: bytes, digits: str, named: bool) -> float:
    lengths = tuple(map(len, _GROUPS.findall(number)))
    if number.startswith(b"+"):
        return 0.95 if len(digits) >= 8 else 0.0
    if lengths == (3, 2, 4) and not named:
        return 0.0  # a social security number
    north_american = lengths[-3:] == (3, 3, 4) and len(lengths) <= 4
    if north_american and number != digits.encode():
        return 0.95 if named else 0.8
    if b"(" in number and b")" in number and number.startswith((b"(", b"0")):
        return 0.9 if named else 0.65
    if named:
        return 0.85 if len(lengths) > 1 or 9 <= len(digits) <= 13 else 0.0
    separators = {byte for byte in number if byte in b" .-/"}
    grouped = number.startswith(b"0") and len(lengths) > 2 and len(digits) >= 9
    return 0.55 if grouped and (b"." not in number or len(separators) > 1) else 0.0


# --- national identity -----------------------------------------------------------------------------------------------


def _checked(valid: Callable[[str], bool], words: re.Pattern[bytes] | None = None, sure: float = 0.9) -> Check:
    """A check digit; and where that alone proves little, a word beside the number that says what it is."""

    def check(candidate: Candidate) -> Finding | None:
        named = words is not None and words.search(candidate.before) is not None
        if words is not None and not named:
            return None
        return _whole(candidate, sure) if valid(candidate.value.decode("ascii", "replace")) else None

    return check


def _is_nino(number: str) -> bool:
    """HMRC's manual NIM39110: letters that no prefix has."""
    compact = number.replace(" ", "").upper()
    return compact[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ") and not set(compact[:2]) & set("DFIQUV")


def _is_aadhaar(number: str) -> bool:
    compact = number.replace(" ", "").replace("-", "")
    return compact[0] not in "01" and len(set(compact)) > 2 and is_valid("verhoeff", compact)


def _is_npi(number: str) -> bool:
    """CMS: Luhn's check over the number with 80840 before it."""
    return is_valid("luhn", f"80840{number}")


# --- the table -------------------------------------------------------------------------------------------------------

_LEFT: Final = r"(?:^|[^0-9A-Za-z_.+-])"
"""Nothing before a number that would make it part of a word, of a longer number or of a decimal."""

ENTITIES: Final[Mapping[str, Entity]] = {
    "email": Entity(
        "EMAIL",
        Pattern(
            r"[A-Za-z0-9_+.-]@[A-Za-z0-9]",
            placed=r"(?:^|[^A-Za-z0-9._%+-])([A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})",
        ),
        _email,
    ),
    "phone": Entity(
        "PHONE",
        Pattern(
            r"\d[ .()/-]{0,2}\d[ .()/-]{0,2}\d[ .()/-]{0,2}\d[ .()/-]{0,2}\d[ .()/-]{0,2}\d[ .()/-]{0,2}\d",
            placed=r"(?:^|[^0-9A-Za-z_.,$=/#+-]|[^0-9],)"
            r"(\+?\(?\d(?:[ ./()-]{0,3}\d){6,16}(?: ?(?:x|ext\.?) ?\d{1,6})?)",
        ),
        _phone,
        4,
    ),
    "credit-card": Entity(
        "CARD",
        Pattern(r"\d{4}[ -]?\d{4}[ -]?\d{2}", placed=_LEFT + r"(\d(?:[ -]?\d){11,22})"),
        _card,
        4,
    ),
    "us-ssn": Entity(
        "SSN",
        Pattern(r"\d{3}[ .-]?\d{2}[ .-]?\d{4}", placed=_LEFT + r"(\d{3}[ .-]?\d{2}[ .-]?\d{4})(?:$|[^0-9A-Za-z_-])"),
        _us_ssn,
        4,
    ),
    "iban": Entity(
        "IBAN",
        Pattern(
            r"(?i)\b[a-z]{2}\d{2}[ -]?[a-z0-9]{4}[ -]?\d",
            placed=r"(?i)(?:^|[^0-9a-z])([a-z]{2}\d{2}(?:[ -]?[a-z0-9]{1,4}){3,8})",
        ),
        _iban,
        4,
    ),
    "ip-address": Entity(
        "IP",
        Pattern(
            r"\d\.\d{1,3}\.\d{1,3}\.\d",
            placed=r"(?:^|[^0-9A-Za-z_.-])(\d{1,3}(?:\.\d{1,3}){3})(?:$|[^0-9A-Za-z_.-]|\.(?:$|\D))",
        ),
        _ipv4,
    ),
    "ipv6-address": Entity(
        "IP",
        Pattern(
            r"(?i)[0-9a-f]:[0-9a-f]{0,4}:[0-9a-f]",
            placed=r"(?i)(?:^|[^0-9a-z_:.])((?:[0-9a-f]{1,4}:|:){2,8}[0-9a-f:]{0,8})(?:$|[^0-9a-z_:])",
        ),
        _ipv6,
    ),
    "uk-nino": Entity(
        "NINO",
        Pattern(
            r"(?i)\b[a-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[a-d]\b",
            placed=r"(?i)(?:^|[^0-9a-z])([a-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[a-d])(?:$|[^0-9a-z])",
        ),
        _checked(_is_nino),
    ),
    "fr-nir": Entity(
        "NIR",
        Pattern(
            r"\b[12] ?\d{2} ?[01]\d",
            placed=_LEFT + r"([12] ?\d{2} ?[01]\d ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})(?:$|[^0-9A-Za-z])",
        ),
        _checked(functools.partial(is_valid, "fr.nir")),
    ),
    "es-dni": Entity(
        "DNI",
        Pattern(r"\d{8}-?[A-Z]", placed=_LEFT + r"(\d{8}-?[A-Z])(?:$|[^0-9A-Za-z])"),
        _checked(functools.partial(is_valid, "es.dni")),
    ),
    "es-nie": Entity(
        "NIE",
        Pattern(r"\b[XYZ]-?\d{7}-?[A-Z]", placed=_LEFT + r"([XYZ]-?\d{7}-?[A-Z])(?:$|[^0-9A-Za-z])"),
        _checked(functools.partial(is_valid, "es.nie")),
    ),
    "it-codice-fiscale": Entity(
        "CODICE_FISCALE",
        Pattern(
            r"\b[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d",
            placed=_LEFT + r"([A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z])(?:$|[^0-9A-Za-z])",
        ),
        _checked(functools.partial(is_valid, "it.codicefiscale")),
    ),
    "br-cpf": Entity(
        "CPF",
        Pattern(r"\d{3}\.\d{3}\.\d{3}-\d", placed=_LEFT + r"(\d{3}\.\d{3}\.\d{3}-\d{2})(?:$|[^0-9A-Za-z])"),
        _checked(functools.partial(is_valid, "br.cpf")),
    ),
    "in-aadhaar": Entity(
        "AADHAAR",
        Pattern(r"\d{4}[ -]?\d{4}[ -]?\d{4}", placed=_LEFT + r"(\d{4}[ -]?\d{4}[ -]?\d{4})(?:$|[^0-9A-Za-z-])"),
        _checked(_is_aadhaar, _words("aadhaar", "aadhar", "uidai", "uid")),
    ),
    "us-npi": Entity(
        "NPI",
        Pattern(r"\b[12]\d{9}\b", placed=_LEFT + r"([12]\d{9})(?:$|[^0-9A-Za-z])"),
        _checked(_is_npi, _words("npi", "provider number", "provider id")),
    ),
}
"""Every entity that the settings may name."""

_DIGIT: Final = r"(?:\d|%3\d|\\u003\d)"
_BLANK: Final = r"(?:[ -]|%20|%2[Dd])"
_SPLIT_DIGITS: Final = rf"{_DIGIT}(?:{_BLANK}?{_DIGIT}){{0,17}}"

SPLIT: Final[Mapping[str, Entity]] = {
    "credit-card": Entity(
        "CARD",
        Pattern(
            rf"\d(?:{GAP})\d|\d(?:%3\d|\\u003\d|%20\d)|(?:%3\d){{4}}|(?:\\u003\d){{4}}",
            placed=rf"{_LEFT}({_SPLIT_DIGITS}(?:(?:{GAP}){_SPLIT_DIGITS}){{1,2}}|{_DIGIT}(?:{_BLANK}?{_DIGIT}){{12,18}})"
            r"(?:$|[^0-9A-Za-z_%\\-])",
        ),
        _split_card,
        4,
    ),
}
"""How some of them are found too when something was put into them."""

DEFAULT: Final = ("email", "phone", "credit-card", "us-ssn", "iban", "ip-address", "ipv6-address")
"""What is looked for where the settings name nothing."""
