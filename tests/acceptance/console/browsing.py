"""A real browser on the console: Debian's Chromium, driven by Playwright, which downloads nothing.

Every page watches itself: what the browser logs as an error, a violation of the Content-Security-Policy, an exception
that nobody caught, or an answer of 500 and above makes `Watched.complaints` longer, and the test fails at its end.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright

from tests.acceptance.console.stage import OWNER, PASSWORD
from tests.gateway_process import PATIENCE, GatewayProcess

WIDE: Final = {"width": 1360, "height": 860}
PHONE: Final = {"width": 390, "height": 844}
AXE: Final = Path(__file__).with_name("node") / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS: Final = ("serious", "critical")
expect.set_options(timeout=PATIENCE * 1000)

# (name, address, words that are there once the page has what it shows)
PAGES: Final = (
    ("overview", "/console/overview", "Added latency, median"),
    ("events", "/console/events", "Show older"),
    ("usage", "/console/usage", "altogether"),
    ("escalations", "/console/escalations", "gpt-4o, chat"),
    ("playground", "/console/playground", "Say something"),
    ("audit", "/console/audit", "Checkpoints prove"),
    ("gateway-keys", "/console/keys", "docs-search"),
    ("teams", "/console/teams", "Developer tools and search"),
    ("configurations", "/console/configurations", "batch-jobs"),
    ("configuration", "/console/configurations/assistants", "Versions"),
    ("users", "/console/users", "Grace Moreau"),
    ("account", "/console/account", "Where you are signed in"),
)


def chromium() -> str | None:
    """The browser, where there is one."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser. `--no-sandbox` because tests may run as root, which Chromium refuses otherwise."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--font-render-hinting=none"]
        )
        try:
            yield opened
        finally:
            opened.close()


class Watched:
    """A page of the console, and what it had to complain about."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        # What a page was refused on purpose (401, 404, 409) the browser logs as an error of the network, too.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(f"console: {message.text}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.append(f"{response.status}: {response.url}")

    def open(self, url: str, words: str) -> Page:
        """Go there and wait until the page shows these words."""
        self.page.goto(url)
        self.page.get_by_text(words).first.wait_for()
        return self.page

    def settle(self) -> None:
        """Wait until nothing is loading."""
        expect(self.page.locator(".bone")).to_have_count(0)


@contextlib.contextmanager
def console(
    opened: Browser, url: str, *, theme: str = "light", viewport: dict[str, int] | None = None, **options: Any
) -> Iterator[Watched]:
    """A fresh browser profile in which nobody has signed in."""
    context = opened.new_context(
        base_url=url, color_scheme=theme, viewport=viewport or WIDE, locale="en-GB", timezone_id="UTC", **options
    )
    context.set_default_timeout(PATIENCE * 1000)
    try:
        watched = Watched(context)
        yield watched
        assert watched.complaints == []
    finally:
        context.close()


def sign_in(watched: Watched, url: str, email: str = OWNER) -> None:
    """As a person does."""
    page = watched.open(f"{url}/console/", "Sign in")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()


def printed_link(gateway: GatewayProcess) -> str:
    """The set-up link that a gateway without users prints, once it has."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := re.search(r"http://\S+/console/setup\?token=\S+", gateway.log):
            return found[0].replace("localhost", "127.0.0.1")
        time.sleep(0.02)  # as often as one looks
    raise AssertionError(gateway.log)


def violations(page: Page) -> list[str]:
    """What axe-core finds serious on the page as it is now (WCAG 2.2 A and AA, and its own best practices)."""
    # Evaluated by the debugger, not added as a script: the page's policy would, rightly, refuse that.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']][:4]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]
