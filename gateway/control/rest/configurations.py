"""Configurations over the API: what is in force, versions, changes, roll back: `/configurations`.

A text is checked and compiled before it is stored, then stored as a version, then brought into force by the supervisor
like a file. If the workers do not take it after all, what was in force before is put back, and the caller hears why.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from gateway.config.lint import lint
from gateway.config.load import LoadedConfiguration, load_text
from gateway.config.problems import ConfigurationInvalid
from gateway.config.problems import Problem as Found
from gateway.control.identity.roles import Permission
from gateway.control.rest import shapes
from gateway.control.rest.call import Call
from gateway.control.rest.pages import cursor_of, page
from gateway.control.rest.shapes import at
from gateway.control.store.errors import VersionChanged, VersionNotFound
from gateway.control.store.paging import Place
from gateway.control.store.store import Store
from gateway.errors import ConfigurationRefused, NotFound, VersionRequired

FILE: Final = "policy-config.yaml"
"""What problems call the text."""


class RefusedWithProblems(ConfigurationRefused):
    """A configuration was refused; `problems` says at which lines."""

    def __init__(self, problems: tuple[shapes.Problem, ...]) -> None:
        worst = next((one for one in problems if one.severity == "error"), problems[0])
        place = f"line {worst.line}: " if worst.line else ""
        super().__init__(f"The configuration cannot come into force: {place}{worst.message}")
        self.problems = problems


async def configurations(call: Call) -> shapes.ConfigurationList:
    """The configurations in force, the default one first."""
    in_force = call.plane.in_force
    numbers = await call.store.configurations.numbers()
    run_file = in_force.run_file
    return shapes.ConfigurationList(
        data=tuple(_out(one, call, numbers) for one in in_force.configurations),
        reload_error=None if run_file is None else run_file.error,
    )


async def configuration(call: Call) -> web.Response:
    """One configuration and its text; `ETag` is what `If-Match` wants when it is changed."""
    id = call.part("configuration")
    numbers = await call.store.configurations.numbers()
    for one in call.plane.in_force.configurations:
        if one.id == id:
            shown = _out(one, call, numbers)
            return _with_etag(shapes.ConfigurationText(configuration=shown, text=one.text), numbers.get(id, 0))
    if id not in numbers:
        raise NotFound(f"There is no configuration {id!r}.")
    kept = await call.store.configurations.version(id)
    shown = _out(_loaded(kept.text), call, numbers)
    return _with_etag(shapes.ConfigurationText(configuration=shown, text=kept.text), kept.number)


async def check(call: Call) -> shapes.Checked:
    """What is wrong or doubtful about a text."""
    problems = await asyncio.to_thread(_check, call.body.text, None)
    return shapes.Checked(valid=not any(one.severity == "error" for one in problems), problems=problems)


async def schema(call: Call) -> web.Response:
    """The JSON Schema of the file, for editors."""
    from gateway.config.jsonschema import json_schema
    from gateway.config.registry import installed

    made = await asyncio.to_thread(lambda: orjson.dumps(json_schema(installed())))
    return web.Response(body=made, content_type="application/json")


async def change(call: Call) -> web.Response:
    """Store a new version and bring it into force."""
    id, text = call.part("configuration"), call.body.text
    expected = _expected(call)
    problems = await asyncio.to_thread(_check, text, id)
    if any(one.severity == "error" for one in problems):
        raise RefusedWithProblems(problems)
    version = await call.store.configurations.add(id, text, call.body.note, expected=expected, actor=call.actor)
    return await _settled(call, id, expected, version.number, version.text)


async def roll_back(call: Call) -> web.Response:
    """Put an earlier version in force again."""
    id, expected = call.part("configuration"), _expected(call)
    version = await call.store.configurations.version(id, call.body.number)
    problems = await asyncio.to_thread(_check, version.text, id)
    if any(one.severity == "error" for one in problems):
        raise RefusedWithProblems(problems)
    await call.store.configurations.put_in_force(id, version.number, expected=expected, actor=call.actor)
    return await _settled(call, id, expected, version.number, version.text)


async def release(call: Call) -> None:
    """Give a configuration back to its file. Its versions stay."""
    id, expected = call.part("configuration"), _expected(call)
    await call.store.configurations.release(id, expected=expected, actor=call.actor)
    error = await call.plane.keeper.settle(id, None)
    if error is not None:
        await _put_back(call.store, call, id, 0, expected)
        raise ConfigurationRefused(f"Without it the gateway cannot go on: {error}")


async def versions(call: Call) -> shapes.VersionPage:
    """The versions that the store has."""
    id, wanted = call.part("configuration"), call.query
    found = await call.store.configurations.versions(id, page(wanted.limit, wanted.cursor))
    number = (await call.store.configurations.numbers()).get(id, 0)
    following = None
    if len(found) > wanted.limit:
        found = found[: wanted.limit]
        following = cursor_of(Place(float(found[-1].number), id))
    rows = (
        shapes.VersionOut(
            number=one.number,
            author=one.author,
            note=one.note,
            created_at=at(one.created_at),
            in_force=one.number == number,
        )
        for one in found
    )
    return shapes.VersionPage(data=tuple(rows), next=following)


async def version(call: Call) -> shapes.VersionText:
    """One version and its text."""
    one = await call.store.configurations.version(call.part("configuration"), call.number("number"))
    return shapes.VersionText(
        number=one.number, author=one.author, note=one.note, created_at=at(one.created_at), text=one.text
    )


async def _settled(call: Call, id: str, before: int, number: int, text: str) -> web.Response:
    """Wait until the workers have it; if they do not take it, put back what was."""
    error = await call.plane.keeper.settle(id, text)
    if error is not None:
        await _put_back(call.store, call, id, number, before)
        raise ConfigurationRefused(f"The workers did not take it, and what was in force still is: {error}")
    shown = _out(_loaded(text), call, {id: number})
    return _with_etag(shown, number)


async def _put_back(store: Store, call: Call, id: str, number: int, before: int) -> None:
    try:
        if before:
            await store.configurations.put_in_force(id, before, expected=number, actor=call.actor)
        else:
            await store.configurations.release(id, expected=number, actor=call.actor)
    except (VersionChanged, VersionNotFound):
        return  # somebody else has changed it by now: theirs holds
    await call.plane.keeper.step()


def _expected(call: Call) -> int:
    """The number that the author has seen, by `If-Match`. Raises VersionRequired."""
    given = call.request.headers.get("If-Match", "").strip().strip('"')
    if not (given.isascii() and given.isdecimal() and len(given) <= 9):
        raise VersionRequired("Say with `If-Match` which version you have changed; the `ETag` of the text is it.")
    return int(given)


def _with_etag(value: Any, number: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", headers={"ETag": f'"{number}"'}
    )


def _out(one: LoadedConfiguration, call: Call, numbers: dict[str, int]) -> shapes.ConfigurationOut:
    in_force = call.plane.in_force.configurations
    return shapes.ConfigurationOut(
        id=one.id,
        source="store" if one.id in numbers else "file",
        number=numbers.get(one.id, 0),
        version=one.version,
        default=bool(in_force) and in_force[0].id == one.id,
        models=tuple(dict.fromkeys(target.model for target in one.configuration.providers.targets)),
        policies=one.configuration.policies.chain if call.may(Permission.READ_CONFIGURATIONS) else (),
        in_force=any(other.id == one.id and other.version == one.version for other in in_force),
    )


def _loaded(text: str) -> LoadedConfiguration:
    return load_text(text, FILE)


def _check(text: str, id: str | None) -> tuple[shapes.Problem, ...]:
    """What is wrong or doubtful about a text; for a thread, since it is compiled as the workers would. `id`: what it
    must be called."""
    from gateway.explain import compile_apart

    try:
        loaded = load_text(text, FILE)
        if id is not None and loaded.id != id:
            wrong = loaded.problem("pack.name", f"this is the configuration `{id}`", "keep its name")
            raise ConfigurationInvalid([wrong])
        compile_apart([loaded], os.environ)
    except ConfigurationInvalid as error:
        return tuple(_problem(one, severity="error") for one in error.problems)
    except Exception as error:  # whatever a compilation raises: the text cannot come into force
        return (shapes.Problem(line=0, column=0, path="", message=str(error), hint="", severity="error"),)
    return tuple(_problem(one, severity=one.severity.value) for one in lint([loaded], os.environ))


def _problem(one: Found, severity: Any) -> shapes.Problem:
    return shapes.Problem(
        line=one.line, column=one.column, path=one.path, message=one.message, hint=one.hint, severity=severity
    )
