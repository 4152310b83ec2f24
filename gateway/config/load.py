"""Configuration files to configurations: read, check, decode; every problem of every file at once.

A configuration is one file; its id is `pack.name`; the first one given is the default. Nothing here has an effect: no
environment is read, no secret fetched, no policy compiled, so that a reload can load first and decide then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from yaml.nodes import MappingNode

from gateway.config.decode import Decoder
from gateway.config.document import MAX_BYTES, join, parent, parse
from gateway.config.problems import ConfigurationInvalid, Problem, Severity, in_order
from gateway.config.registry import Registry, installed
from gateway.config.schema import Configuration

SUFFIXES = (".yaml", ".yml")


class LoadedConfiguration(Struct, frozen=True):
    """A configuration, and where it came from.

    `configuration.policy` has the settings of every kind of the chain, those with nothing but defaults included.
    `version` is a digest of the text: two files with the same version say the same. `places` has the line and column,
    from 1, of every setting that stands in the file.
    """

    id: str
    file: str
    text: str
    version: str
    configuration: Configuration
    places: Mapping[str, tuple[int, int]]

    def problem(self, path: str, message: str, hint: str = "", severity: Severity = Severity.WARNING) -> Problem:
        """A problem with the setting at `path`, at its place or at that of the nearest section above it."""
        place = path
        while place not in self.places:
            place = parent(place)
        line, column = self.places[place]
        return Problem(self.file, line, column, path, message, hint, severity)


def kept_folder(run_folder: Path) -> Path:
    """Where configurations that the store keeps stand as files: beside the run folders of a port, which take turns."""
    port = run_folder.name.removeprefix("run-").removesuffix("-b")
    return run_folder.with_name(f"configurations-{port}")


def load(
    paths: Iterable[str | Path], *, registry: Registry | None = None, kept: Path | None = None
) -> list[LoadedConfiguration]:
    """Load files, and the `*.yaml` and `*.yml` of folders in the order of their names. The first is the default.

    Those in the folder `kept` take the place of others with the same id, or come after them. Configurations with
    `pack.enabled: false` are checked and left out, but for shadows of others, which come last. Raises
    ConfigurationInvalid with the problems of all files, also where two share an id, and where none is left.
    """
    paths = list(paths)
    loaded, problems = check(paths, registry=registry)
    if kept is not None:
        own, wrong = check(kept_files(kept), registry=registry)
        replacing = {one.id: one for one in own}
        loaded = [replacing.pop(one.id, one) for one in loaded] + list(replacing.values())
        problems += wrong
    if problems:
        raise ConfigurationInvalid(problems)
    enabled = [one for one in loaded if one.configuration.pack.enabled]
    if not enabled:
        where = ", ".join(map(str, paths))
        raise ConfigurationInvalid([Problem(where, 0, 0, "", "there is no configuration that is enabled")])
    return [*enabled, *_unserved_shadows(enabled, loaded)]


def _unserved_shadows(
    enabled: Sequence[LoadedConfiguration], loaded: Sequence[LoadedConfiguration]
) -> list[LoadedConfiguration]:
    """Those that only judge beside others. Raises ConfigurationInvalid for one that is not there."""
    asked = {shadow.configuration: one for one in enabled if (shadow := one.configuration.policies.shadow) is not None}
    known = {one.id for one in loaded}
    if missing := [(name, one) for name, one in asked.items() if name not in known]:
        path = "policies.shadow.configuration"
        told = [(f"no configuration `{name}` is loaded", one) for name, one in missing]
        raise ConfigurationInvalid([one.problem(path, text, severity=Severity.ERROR) for text, one in told])
    return [one for one in loaded if one.id in asked and not one.configuration.pack.enabled]


def check(
    paths: Iterable[str | Path], *, registry: Registry | None = None
) -> tuple[list[LoadedConfiguration], list[Problem]]:
    """The configurations that are right, enabled or not, and what is wrong with the others or among them."""
    loaded: list[LoadedConfiguration] = []
    problems: list[Problem] = []
    for file in _files(paths, problems):
        try:
            loaded.append(load_file(file, registry=registry))
        except ConfigurationInvalid as error:
            problems.extend(error.problems)
    problems.extend(_shared_ids(loaded))
    return loaded, problems


def load_file(file: str | Path, *, registry: Registry | None = None) -> LoadedConfiguration:
    """Load one file, enabled or not. Raises ConfigurationInvalid."""
    try:
        with Path(file).open("rb") as stream:
            # One byte more than may be: enough for the check, however large the file is.
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise ConfigurationInvalid([Problem(str(file), 0, 0, "", message)]) from error
    return load_text(content, str(file), registry=registry)


def load_text(text: str | bytes, name: str, *, registry: Registry | None = None) -> LoadedConfiguration:
    """Load one configuration from its text; problems call it `name`. Raises ConfigurationInvalid."""
    content = text.encode() if isinstance(text, str) else text
    registry = registry or installed()
    document = parse(content, name)
    if document.root is None:
        raise ConfigurationInvalid([Problem(name, 0, 0, "", "the file is empty", "`kt init` writes a first one")])
    decoder = Decoder(document, registry)
    configuration: Configuration | None = decoder.struct(document.root, Configuration)
    settings = _settings_of_chain(decoder, configuration) if configuration else {}
    if document.problems or configuration is None:
        raise ConfigurationInvalid(in_order(document.problems))
    return LoadedConfiguration(
        id=configuration.pack.name,
        file=name,
        text=content.decode(),
        version=hashlib.sha256(content).hexdigest()[:16],
        configuration=msgspec.structs.replace(configuration, policy=settings),
        places={path: (at.start_mark.line + 1, at.start_mark.column + 1) for path, at in decoder.marks.items()},
    )


def source_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that `load` reads for these paths, now."""
    return list(_files(paths, []))


def kept_files(folder: Path) -> list[Path]:
    """The configurations that the store keeps, as files; the folder need not be there."""
    return sorted(file for file in folder.iterdir() if _is_configuration(file)) if folder.is_dir() else []


def _files(paths: Iterable[str | Path], problems: list[Problem]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.iterdir() if _is_configuration(file))
        if not files:
            problems.append(Problem(str(path), 0, 0, "", f"the folder has no {' or '.join(f'*{s}' for s in SUFFIXES)}"))
        yield from files


def _is_configuration(file: Path) -> bool:
    # Hidden files are what editors and Kubernetes' ConfigMap mounts leave beside the real ones.
    return file.suffix in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _shared_ids(loaded: Sequence[LoadedConfiguration]) -> Iterator[Problem]:
    first: dict[str, LoadedConfiguration] = {}
    for one in loaded:
        if one.id in first:
            message = f"the id `{one.id}` is taken by {first[one.id].file}"
            yield one.problem("pack.name", message, "give each configuration its own name", Severity.ERROR)
        first.setdefault(one.id, one)


def _settings_of_chain(decoder: Decoder, configuration: Configuration) -> dict[str, Any]:
    """Every kind of the chain with its settings. A kind without a section has the defaults, if there are any."""
    settings = dict(configuration.policy)
    empty = MappingNode("tag:yaml.org,2002:map", [])
    for index, kind in enumerate(configuration.policies.chain):
        if kind not in settings:
            node = decoder.marks[join("policies.chain", index)]
            empty.start_mark = node.start_mark
            settings[kind] = decoder.policy(empty, kind, f"policy.{kind}")
    return settings
