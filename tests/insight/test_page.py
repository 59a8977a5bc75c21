from __future__ import annotations

import base64
import io
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.insight.browser import needs_chromium, opened
from worldmodel.errors import UserError
from worldmodel.insight.page import Details, Film, Picture, Section, Table, write_html
from worldmodel.insight.video import mp4_bytes


def png(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (colour, 90, 90)).save(file, format="png")
    return file.getvalue()


PNG, MP4 = png(200), mp4_bytes(np.full((4, 64, 64, 3), 90, np.uint8), fps=10)


class Sources(HTMLParser):
    """What a page would fetch, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_holds_all_that_it_shows(tmp_path: Path) -> None:
    picture = Picture(PNG, 'What is <covered> & "how"')
    film, details = Film(MP4, PNG, "It <moves>"), Details("config", "a: <1>\nb: 2")
    table = Table(("name", "value"), [("frames", 12000), ("error", 0.123456), ("unknown", math.nan)])
    path = tmp_path / "new" / "page.html"
    write_html(path, [Section("One & two", ["1 < 2", table]), Section("Three", [picture, film, details])], "A <run>")
    text = path.read_text()
    assert "http://" not in text and "https://" not in text and "url(" not in text
    page = Sources()
    page.feed(text)
    assert [x.split(",")[0] for x in page.fetched] == ["data:image/png;base64"] * 2 + ["data:video/mp4;base64"]
    assert base64.b64decode(page.fetched[2].split(",")[1]) == MP4
    for words in (
        "A <run>",
        "One & two",
        "1 < 2",
        "12,000",
        "0.123",
        "\u2013",
        "What is <covered> &",
        "It <moves>",
        "a: <1>\nb: 2",
    ):
        assert words in page.text
    assert [x.name for x in path.parent.iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match="cannot write the report"):
        write_html(tmp_path / "page.html", [])
    assert [x.name for x in tmp_path.iterdir()] == ["page.html"]


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="int is no part of a page"):
        write_html(tmp_path / "page.html", [Section("One", [3])])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


@needs_chromium
def test_a_browser_shows_it_from_the_disk_without_a_word(tmp_path: Path) -> None:
    table = Table(("name", "value"), [("frames", 12000)])
    parts = [Picture(PNG, "a picture"), Film(MP4, PNG, "a film"), Details("config", "a: 1"), table]
    write_html(tmp_path / "page.html", [Section("One", parts)], "A run")
    with opened(tmp_path / "page.html") as page:
        assert page.title() == "A run"
        assert page.evaluate("document.images[0].naturalWidth") == 256
        page.evaluate("document.querySelector('video').play()")
        page.wait_for_function("document.querySelector('video').currentTime > 0")
        assert page.evaluate("document.querySelector('video').videoWidth") == 256
        assert not page.locator("pre").is_visible()
        page.locator("summary").click()
        assert page.locator("pre").is_visible()


@needs_chromium
def test_a_page_that_would_fetch_something_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<img src='http://127.0.0.1:9/x.png'>")
    with pytest.raises(AssertionError), opened(tmp_path / "page.html"):
        pass
