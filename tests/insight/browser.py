"""Pages as a browser shows them. Tests that need it are skipped where there is no chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file in chromium, without a network. Nothing may be fetched, and nothing be said on the console."""
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.on("requestfailed", lambda request: said.append(request.url[:100]))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert said == []
