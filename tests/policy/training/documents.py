"""Harmless documents, made by rule: mails, notices, tables, logs. Their form is that of what attacks are hidden in."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRMS = (
    "Northwind",
    "Bluebird Bank",
    "Paperplane",
    "Acme Tools",
    "GreenGrocer",
    "Skylark Air",
    "Hotel Linden",
    "Quickpost",
    "Tidy Cloud",
)
_PEOPLE = ("Daniel", "Sofia", "Mark Reed", "Priya", "Tom", "Jana Novak", "Ms Allen", "team", "all", "customer")
_THINGS = (
    "invoice",
    "order",
    "booking",
    "subscription",
    "card payment",
    "transfer",
    "parcel",
    "ticket",
    "meeting",
    "report",
    "contract",
    "refund",
)
_PLACES = ("Oslo", "the main office", "room 4", "Chicago", "platform 3", "the lobby", "Lyon")
_OPENINGS = ("Hi {p},", "Dear {p},", "Hello {p},", "Good morning {p},", "Hey {p}!", "{p},")
_BODY = (
    "Your {t} of ${n}.{c} from {f} has been received.", "The {t} was charged to your account ending in {n}.", "We will send it to you within {d} days.",
    "The settled amount may differ from this first charge.", "If you have any questions, just reply to this mail.", "Please confirm the {t} by Friday.",
    "The money will arrive in your account on {d} March.", "You can see the details in your dashboard.", "Please find the {t} attached.",
    "We would like to invite you to our yearly party in {l}.", "Could you send me the {t} before the call?", "Let me know if this works for you.",
    "Your {t} number is {n}-{c}.", "To stop these messages, change your notification settings.", "The {t} for {l} has moved to {d} pm.",
    "I have attached the notes of our last {t}; please review them.", "Remember to bring your badge.", "We need your approval for the {t}.",
    "{f} has changed its terms; the new ones apply from {d} May.", "Do not share your password with anyone.", "This is an automated message.",
    "Thank you for choosing {f}.", "Please forward this to whoever is in charge of the {t}.", "The system will be down for maintenance on Sunday.",
    "As the quarter ends, the budget has to be approved.", "Important: the {t} is due on {d} June.", "You must pay within {d} days.",
    "Click the button in the app to see your {t}.", "We noticed a login to your account from {l}.", "Your verification code is {n}{c}.",
    "The confirmation was sent to {p} at {f}.", "I will be out of office until the {d}th.", "Action required: update your billing address.",
)  # fmt: skip
_CLOSINGS = (
    "Thanks,\n{p}",
    "Best regards,\n{f}",
    "Cheers",
    "Kind regards, {p}, {f}",
    "The {f} team",
    "See you,\n{p}",
    "",
    "",
)
_ERRORS = ("KeyError: '{t}'", "ValueError: invalid {t}: {n}", "TypeError: unsupported operand type(s)", "IndexError: list index out of range", "AttributeError: 'NoneType' object has no attribute '{t}'", "ModuleNotFoundError: No module named '{t}'", "AssertionError: {n} != {c}", "RuntimeError: {t} failed")  # fmt: skip
_CODE = ("    result = load_{t}({n})", "    for row in {t}s: total += row.amount", "    return df.groupby('{t}').mean()", "    x = np.zeros({n})", "    self.{t} = {t}", "    response = session.get(url, timeout={d})", "    assert len({t}s) == {n}", "    model.fit(X, y)", "    print({t})")  # fmt: skip


def documents(count: int, seed: int) -> list[str]:
    """So many documents, of all forms alike."""
    rng = random.Random(seed)
    forms: tuple[Callable[[random.Random], str], ...] = (_mail, _mail, _raw_mail, _table, _trace, _yaml, _chat)
    return [rng.choice(forms)(rng) for _ in range(count)]


def _fill(text: str, rng: random.Random) -> str:
    return text.format(
        p=rng.choice(_PEOPLE), t=rng.choice(_THINGS), f=rng.choice(_FIRMS), l=rng.choice(_PLACES),
        n=rng.randint(100, 9999), c=rng.randint(10, 99), d=rng.randint(2, 28),
    )  # fmt: skip


def _lines(choices: tuple[str, ...], least: int, most: int, rng: random.Random, between: str) -> str:
    return between.join(_fill(line, rng) for line in rng.sample(choices, min(len(choices), rng.randint(least, most))))


def _mail(rng: random.Random) -> str:
    between = rng.choice((" ", " ", "\n", "\n\n"))
    opening, closing = _fill(rng.choice(_OPENINGS), rng), _fill(rng.choice(_CLOSINGS), rng)
    return f"{opening}{rng.choice((chr(10), ' ', ''))}{_lines(_BODY, 2, 8, rng, between)}\n{closing}"


def _raw_mail(rng: random.Random) -> str:
    subject, name, firm = _fill(rng.choice(_BODY), rng), rng.choice(_PEOPLE), rng.choice(_FIRMS)
    if rng.random() < 0.5:
        return f"SUBJECT: {subject}|EMAIL_FROM: {firm} <hello@example.com>|RECEIVED DATE: Tue, 1 Mar 2022|CONTENT: {_mail(rng)}"
    return f"From: {name}\nTo: info@example.com\nSubject: {subject}\nBody: {_mail(rng)}"


def _table(rng: random.Random) -> str:
    head = rng.sample(_THINGS, 4)
    rows = [
        [str(rng.randint(1, 9999)), rng.choice(_FIRMS), rng.choice(_PLACES), _fill("{c}%", rng)]
        for _ in range(rng.randint(3, 14))
    ]
    return "\n".join(
        "| " + " | ".join(cell.title().ljust(rng.randint(8, 24)) for cell in row) + " |" for row in [head, *rows]
    )


def _trace(rng: random.Random) -> str:
    frames = "\n".join(
        f'  File "{rng.choice(("app", "main", "utils", "test"))}.py", line {rng.randint(2, 300)}, in {rng.choice(("run", "<module>", "test", "load"))}\n'
        f"{_fill(rng.choice(_CODE), rng)}"
        for _ in range(rng.randint(1, 6))
    )
    end = f"Traceback (most recent call last):\n{frames}\n{_fill(rng.choice(_ERRORS), rng)}"
    return end + (
        f"\n\nCode:\nimport numpy as np\n\ndef test():\n{_lines(_CODE, 2, 8, rng, chr(10))}\n"
        if rng.random() < 0.5
        else ""
    )


def _yaml(rng: random.Random) -> str:
    return "\n".join(
        f'  - id: {number}\n    sender: "{rng.choice(_FIRMS)}"\n    amount: {rng.randint(5, 900)}.0\n    subject: "{_fill(rng.choice(_BODY), rng)}"\n    recurring: {rng.choice(("true", "false"))}'
        for number in range(1, rng.randint(2, 9))
    )


def _chat(rng: random.Random) -> str:
    return "\n".join(f"{rng.choice(_PEOPLE)}: {_fill(rng.choice(_BODY), rng)}" for _ in range(rng.randint(2, 8)))
