"""The console at `/console/`: a page, its styles and its modules, as they lie in this package.

There is nothing to build and nothing comes from elsewhere. The page asks the REST API for whatever it shows; here are
only files, so nobody needs to sign in for them. The Content-Security-Policy lets nothing run that is not such a file:
no inline script or style, no string that becomes HTML. Files are read once; whether a browser has the newest its `ETag`
tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web

from gateway.errors import NotFound

STATIC: Final = Path(__file__).with_name("static")
PREFIX: Final = "/console"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""https://www.w3.org/TR/CSP3/. Trusted types without a policy: the browser refuses to make HTML of any text."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Kept by the browser, and asked for each time: after an upgrade nobody sees yesterday's page.
    "Cache-Control": "no-cache",
}
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class _File(NamedTuple):
    """One file, as it is sent."""

    body: bytes
    media: str
    tag: str


class Console:
    """The files, by their path below `static`."""

    def __init__(self) -> None:
        """Raises OSError when the package is not whole."""
        found = (path for path in sorted(STATIC.rglob("*")) if path.suffix in _TYPES)
        self._files = {path.relative_to(STATIC).as_posix(): _read(path) for path in found}
        self._page = self._files.pop("index.html")

    def add_to(self, app: web.Application) -> None:
        """Answer everything below `/console`. The page itself knows which address is which view."""
        app.router.add_get(PREFIX, self._to_page)
        app.router.add_get(f"{PREFIX}/static/{{path:.+}}", self._static)
        app.router.add_get(f"{PREFIX}/{{view:.*}}", self._view)

    async def _to_page(self, request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": f"{PREFIX}/", "Cache-Control": "no-store"})

    async def _view(self, request: web.Request) -> web.Response:
        return _answer(request, self._page)

    async def _static(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["path"])
        if file is None:
            raise NotFound("There is no such file of the console.")
        return _answer(request, file)


def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:24]}"')


def _answer(request: web.Request, file: _File) -> web.Response:
    headers = {**HEADERS, "ETag": file.tag}
    if request.headers.get("If-None-Match") == file.tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.media, charset="utf-8", headers=headers)
