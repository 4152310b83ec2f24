"""axe-core finds nothing serious on any page, light or dark; nor does the page's own policy, nor the browser's log."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.console.browsing import PAGES, PHONE, WIDE, Watched, console, sign_in, violations
from tests.acceptance.console.screenshots import MOMENTS
from tests.gateway_process import GatewayProcess

LOOKS = [("light", WIDE), ("dark", WIDE), ("light", PHONE)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("theme", "viewport"), LOOKS, ids=["light", "dark", "phone"])
def test_no_page_has_a_serious_violation(
    opened: Browser, gateway: GatewayProcess, theme: str, viewport: dict[str, int]
) -> None:
    found: dict[str, list[str]] = {}
    with console(opened, gateway.url, theme=theme, viewport=viewport, reduced_motion="reduce") as watched:

        def judge(name: str, watched: Watched) -> None:
            watched.settle()
            expect(watched.page.locator(".toast")).to_have_count(0)
            if bad := violations(watched.page):
                found[name] = bad

        watched.open(f"{gateway.url}/console/", "Sign in")
        judge("sign-in", watched)
        watched.open(f"{gateway.url}/console/setup?token=x", "Set up the gateway")
        judge("set-up", watched)
        watched.open(f"{gateway.url}/console/invitation?token=x", "Choose a password")
        judge("invitation", watched)
        sign_in(watched, gateway.url)
        for name, address, words in PAGES:
            watched.open(gateway.url + address, words)
            judge(name, watched)
        for name, show in MOMENTS.items():
            show(watched, gateway.url)
            judge(name, watched)
        watched.open(f"{gateway.url}/console/nowhere", "There is no such page")
        judge("nowhere", watched)
    assert found == {}


def test_a_violation_would_be_found(opened: Browser, gateway: GatewayProcess) -> None:
    """The check can fail, and so can the watch on the page's policy."""
    with console(opened, gateway.url) as watched:
        page = watched.open(f"{gateway.url}/console/", "Sign in")
        page.evaluate("() => document.querySelector('label').remove()")
        assert any("label" in one for one in violations(page))
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate("() => document.body.setAttribute('style', 'color: red')")
        assert any("Content Security Policy" in one for one in watched.complaints)
        watched.complaints.clear()
