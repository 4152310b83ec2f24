"""What a migration gives: a configuration in our own words, and notes on what could not be carried over, and why.

A builder collects targets and notes while a converter reads another product's file. It promises that what it gives
loads: ids are made unique and plain, weights whole numbers, URLs are checked by the loader itself at the end. No secret
is ever written: what stood in the file is replaced by the name of an environment variable, and a note says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import yaml

from gateway.config.load import load_text
from gateway.config.problems import ConfigurationInvalid

MAX_WEIGHT: Final = 1000
PLACEHOLDER: Final = "https://replace-me.invalid"
"""Stands where an address was given by something that cannot be carried over."""

DEFAULT_KEYS: Final[Mapping[str, str]] = {
    "openai": "OPENAI_API_KEY",
    "azure-openai": "AZURE_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "cohere": "COHERE_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "groq": "GROQ_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "together": "TOGETHER_API_KEY",
    "perplexity": "PERPLEXITY_API_KEY",
    "xai": "XAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "huggingface": "HF_TOKEN",
    "nvidia": "NVIDIA_API_KEY",
    "cerebras": "CEREBRAS_API_KEY",
    "databricks": "DATABRICKS_API_KEY",
    "cloudflare": "CLOUDFLARE_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "moonshot": "MOONSHOT_API_KEY",
}
"""Where each provider's key is usually looked for when a file names none. Clouds find their own credentials."""


class MigrationError(Exception):
    """Nothing usable comes of the file; the message says why and what to do."""


class Note(NamedTuple):
    """What was not carried over, or not exactly, at its place in the file."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Migration(NamedTuple):
    """The configuration as YAML, and the notes in the order of the file."""

    text: str
    notes: tuple[Note, ...]


class Builder:
    """Collects a configuration."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.targets: list[dict[str, Any]] = []
        self.routing: dict[str, Any] = {}
        self.fallback: dict[str, Any] = {}
        self.chain: list[str] = []
        self.policy: dict[str, Any] = {}
        self.gateway: dict[str, Any] = {}
        self.notes: list[Note] = []

    def note(self, path: str, message: str) -> None:
        """Say what was not carried over."""
        note = Note(path, message)
        if note not in self.notes:
            self.notes.append(note)

    def add_target(self, id: str, **fields: Any) -> None:
        """One more target; its id is made plain and unique, and what is empty is left out."""
        fields = {name: value for name, value in fields.items() if value not in (None, "", {}, [])}
        self.targets.append({"id": self._unique(id), **fields})

    def _unique(self, wanted: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:100] or "target"
        taken = {target["id"] for target in self.targets}
        number, id = 2, plain
        while id in taken:
            id, number = f"{plain}-{number}", number + 1
        return id

    def add_policy(self, kind: str, settings: Mapping[str, Any] | None = None) -> None:
        """A policy at the end of the chain; settings of one that is there are added to."""
        if kind not in self.chain:
            self.chain.append(kind)
        for name, value in (settings or {}).items():
            own = self.policy.setdefault(kind, {})
            own[name] = [*own[name], *value] if isinstance(value, list) and name in own else value

    def finish(self) -> Migration:
        """Write it down. Raises MigrationError when there is no target, or when it would not load."""
        if not self.targets:
            raise MigrationError("\n".join(["No target could be carried over.", *map(str, self.notes)]))
        self.add_policy("audit-logger", {"log_all_access": True})
        document: dict[str, Any] = {
            "pack": {"name": self.name},
            "providers": {"targets": self.targets},
            "policies": {"chain": self.chain},
            "policy": self.policy,
        }
        for name, section in (("routing", self.routing), ("fallback", self.fallback)):
            if section:
                document["providers"][name] = section
        if self.gateway:
            document["gateway"] = self.gateway
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
        try:
            load_text(text, "policy-config.yaml")
        except ConfigurationInvalid as error:
            raise MigrationError(f"What came of the file does not load; mend the file there:\n{error}") from None
        return Migration(text, tuple(self.notes))


def weights(shares: Iterable[float]) -> list[int]:
    """Shares of any size as whole numbers from 1 to 1000 in the same proportion, as far as that goes."""
    shares = [max(share, 0.0) for share in shares]
    highest = max(shares, default=0.0)
    if not highest:
        return [1 for _ in shares]
    if all(share == int(share) for share in shares):
        divisor = math.gcd(*(int(share) for share in shares))
        if highest / divisor <= MAX_WEIGHT:
            return [max(1, int(share) // divisor) for share in shares]
    return [max(1, round(share / highest * 100)) for share in shares]


def variable_name(*parts: str) -> str:
    """A name for an environment variable, made of words."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_").upper()
    return name if name[:1].isalpha() else f"KEY_{name}"
