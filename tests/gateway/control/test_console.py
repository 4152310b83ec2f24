"""The console's files: whole, linked to each other, and sent with a policy that lets nothing else run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway.control.console import HEADERS, STATIC, Console
from gateway.control.rest.server import errors_middleware

SCRIPTS = sorted(STATIC.rglob("*.js"))
_IMPORT = re.compile(r"""^import (?:\{([^}]*)\} from )?"([^"]+)";$""", re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?:async )?(?:const|function\*?|class) (\w+)|^export async function\* (\w+)", re.MULTILINE
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[errors_middleware])
    Console().add_to(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/console/", "/console/keys", "/console/configurations/any%2Fthing"])
async def test_every_view_is_the_one_page(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert await answer.read() == (STATIC / "index.html").read_bytes()
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


async def test_the_page_without_its_slash_is_found(http: aiohttp.ClientSession) -> None:
    async with http.get("/console", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "/console/")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
async def test_scripts_are_sent_as_such(http: aiohttp.ClientSession, script: object) -> None:
    path = script.relative_to(STATIC).as_posix()  # type: ignore[attr-defined]
    async with http.get(f"/console/static/{path}") as answer:
        assert (answer.status, answer.content_type) == (200, "text/javascript")
        tag = answer.headers["ETag"]
    async with http.get(f"/console/static/{path}", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize(
    "path", ["nothing.js", "../__init__.py", "%2e%2e/__init__.py", "js/../../__init__.py", "index.html"]
)
async def test_nothing_else_is_sent(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(f"/console/static/{path}") as answer:
        body = await answer.text()
        assert answer.status == 404 or "<!doctype html>" in body
        assert "from __future__" not in body


def test_the_policy_allows_no_inline_code_and_no_other_origin() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


def test_the_page_has_nothing_that_the_policy_would_refuse() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"""(?:src|href)="(?!/console/static/)""", page)


def test_what_the_page_and_the_styles_name_is_there() -> None:
    for path in re.findall(r"""(?:src|href)="/console/static/([^"]+)""", (STATIC / "index.html").read_text()):
        assert (STATIC / path).is_file(), path
    for sheet in STATIC.glob("css/*.css"):
        for path in re.findall(r"url\(\"?([^)\"]+)", sheet.read_text()):
            assert (sheet.parent / path).resolve().is_file(), path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_scripts_make_no_html_of_texts_and_import_what_there_is(script: object) -> None:
    text = script.read_text()  # type: ignore[attr-defined]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    for names, path in _IMPORT.findall(text):
        other = (script.parent / path).resolve()  # type: ignore[attr-defined]
        assert other.is_file(), path
        exported = {name for match in _EXPORT.findall(other.read_text()) for name in match if name}
        assert {name.strip() for name in names.split(",") if name.strip()} <= exported, path
        for name in filter(None, (name.strip() for name in names.split(","))):
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} of {path} is not used"
