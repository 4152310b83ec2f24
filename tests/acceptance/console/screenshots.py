"""Pictures of every page of the console, light, dark and as wide as a phone: `make screenshots`.

    python -m tests.acceptance.console.screenshots docs/images

A gateway that was furnished with a month of events is started, and what a person would see is kept. Colours are reduced
to a palette, which a page of flat colours does not show, and which keeps each picture below 100 KB.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.acceptance.console.browsing import PAGES, PHONE, WIDE, Watched, browser, console, sign_in
from tests.acceptance.console.stage import DAYS, furnish, furnished_gateway

_LOOKS: Final[tuple[tuple[str, str, dict[str, int]], ...]] = (
    ("light", "light", WIDE),
    ("dark", "dark", WIDE),
    ("phone", "light", PHONE),
)
_COLOURS: Final = 224


def main(folder: Path) -> None:
    """Make them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        asyncio.run(furnish(Path(place) / "state", time.time()))
        with furnished_gateway(Path(place)) as gateway, browser() as opened:
            for look, theme, viewport in _LOOKS:
                _pictures(opened, gateway.url, folder, look, theme, viewport)
    print(f"{len(list(folder.glob('console-*.png')))} pictures of {DAYS} days in {folder}")


def _pictures(opened: Browser, url: str, folder: Path, look: str, theme: str, viewport: dict[str, int]) -> None:
    phone: dict[str, Any] = {"device_scale_factor": 2, "has_touch": True} if look == "phone" else {}
    with console(opened, url, theme=theme, viewport=viewport, **phone) as watched:
        watched.open(f"{url}/console/", "Sign in")
        _keep(watched.page, folder, f"sign-in-{look}")
        sign_in(watched, url)
        watched.page.get_by_text("still being read").wait_for(state="detached")
        for name, address, words in PAGES:
            watched.open(url + address, words)
            _at_rest(watched)
            _keep(watched.page, folder, f"{name}-{look}")
        for name, show in MOMENTS.items():
            show(watched, url)
            _at_rest(watched)
            _keep(watched.page, folder, f"{name}-{look}")


def _at_rest(watched: Watched) -> None:
    watched.settle()


def _keep(page: Page, folder: Path, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    path = folder / f"console-{name}.png"
    picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _an_event(watched: Watched, url: str) -> None:
    page = watched.open(f"{url}/console/events?verdict=redact", "Took")
    page.get_by_role("row").filter(has_text="support-assistant").first.get_by_role("button").click()
    page.get_by_text("Decisions", exact=True).wait_for()


def _a_new_key(watched: Watched, url: str) -> None:
    page = watched.open(f"{url}/console/keys", "docs-search")
    page.get_by_role("button", name="Create gateway key").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("invoice-reader")
    dialog.get_by_text("Limits", exact=True).click()
    dialog.get_by_label("Requests per minute").fill("120")


def _a_key(watched: Watched, url: str) -> None:
    _a_new_key(watched, url)
    watched.page.get_by_role("button", name="Create key").click()
    watched.page.get_by_text("Copy it now").wait_for()


def _an_answer(watched: Watched, url: str) -> None:
    page = watched.open(f"{url}/console/playground", "Say something")
    page.get_by_role("combobox").select_option("gpt-4o")
    page.get_by_label("Message").fill("Write to jo.berg@example.org that the order has been sent.")
    page.keyboard.press("Enter")
    page.get_by_text("The whole event").wait_for()


def _a_mistake(watched: Watched, url: str) -> None:
    page = watched.open(f"{url}/console/configurations/assistants", "Versions")
    area = page.get_by_label("Text of assistants")
    area.fill(area.input_value().replace("- pii-detector", "- pii-detecter", 1))
    page.get_by_text("line 22").wait_for()


MOMENTS: Final = {
    "event": _an_event,
    "create-key": _a_new_key,
    "new-key": _a_key,
    "playground-answer": _an_answer,
    "configuration-checked": _a_mistake,
}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
