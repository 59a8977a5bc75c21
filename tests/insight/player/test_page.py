"""The page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.insight.player.conftest import CHOICES, make_session, parted, served
from worldmodel.insight.player.replayable import Recorded
from worldmodel.insight.player.session import Frame, PlayerSession
from worldmodel.types import ActionSpec

ROOT = ".wm-player"
PICTURE = "name => document.querySelector(`.wm-${name}`).toDataURL()"


def until(page: Any, condition: str) -> None:
    """Wait for a condition on ``data``, what the component tells of itself."""
    page.wait_for_function(f"() => {{ const data = document.querySelector('{ROOT}').dataset; return {condition} }}")


def opened(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".wm-strip button")
    until(page, "data.who === 'record'")


def step(page: Any) -> int:
    return int(page.locator(ROOT).get_attribute("data-step"))


def test_keys_drive_the_dream(page: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served() as address:
        opened(page, address)
        assert step(page) == 0 and page.locator(".wm-status").inner_text() == "step 0, paused"
        begin, before = page.evaluate(PICTURE, "dream"), page.evaluate(PICTURE, "truth")
        page.keyboard.down("ArrowRight")  # the first key sets it going
        until(page, "data.step >= 12 && data.fps > 0")
        assert page.locator("[data-action='0']").input_value() == "1"
        page.keyboard.up("ArrowRight")
        until(page, "data.step >= 14")
        assert page.locator("[data-action='0']").input_value() == "0"
        with capsys.disabled():
            print(f"\n{page.locator(ROOT).get_attribute('data-fps')} frames/s of 10 asked for")
        assert page.evaluate(PICTURE, "dream") != begin and page.evaluate(PICTURE, "truth") != before

        page.keyboard.press(" ")
        paused = step(page)
        page.wait_for_timeout(250)
        assert step(page) <= paused + 1 and "paused" in page.locator(".wm-status").inner_text()
        at = step(page)
        page.keyboard.press("w")
        page.wait_for_timeout(100)
        assert step(page) == at  # once it is paused, keys only set the action
        page.keyboard.press(".")
        until(page, f"data.step == {at + 1}")

        heat = page.locator(".wm-heat")
        assert heat.is_visible()
        page.keyboard.press("o")
        assert not heat.is_visible() and not page.locator(".wm-legend").is_visible()
        page.keyboard.press("O")
        assert heat.is_visible()

        for key, speed in (("+", "11 frames/s"), ("-", "10 frames/s")):
            page.keyboard.press(key)
            assert page.get_by_text(speed, exact=True).is_visible()

        page.keyboard.press("r")
        until(page, "data.step == 0")
        assert page.evaluate(PICTURE, "dream") == begin and page.evaluate(PICTURE, "truth") == before
        image = tmp_path / "player.png"
        page.screenshot(path=str(image))
        assert image.stat().st_size > 10_000


def test_everything_fits_and_the_focus_is_seen(page: Any) -> None:
    with served() as address:
        opened(page, address)
        size = "[document.documentElement.scrollHeight, document.documentElement.scrollWidth]"
        assert page.evaluate(size) == [800, 1280]
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.does") == "me"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.keyboard.press("Tab")
        page.keyboard.press(" ")  # the button's own key does not also pause
        assert page.locator("[data-does='actor']").get_attribute("aria-pressed") == "true"
        assert "paused" in page.locator(".wm-status").inner_text()
        unnamed = "[...document.querySelectorAll('button, input, select')].filter(x => !x.labels?.length && "
        unnamed += "!x.ariaLabel && !x.innerText.trim() && !x.title).length"
        assert page.evaluate(unnamed) == 0


def session_of(kind: type[PlayerSession]) -> PlayerSession:
    session = make_session()
    session.__class__ = kind
    return session


def test_a_tap_of_40_ms_is_an_action(page: Any) -> None:
    taken: list[float] = []

    class Told(PlayerSession):
        def step(self, action: Any = None) -> Frame:
            taken.append(action[0])
            return super().step(action)

    with served(lambda: session_of(Told)) as address:
        opened(page, address)
        page.keyboard.press(" ")
        until(page, "data.step >= 2")
        for tap in range(6):
            page.keyboard.press("d", delay=40)
            page.wait_for_timeout(210 + 17 * tap)  # at other moments between two steps
        page.keyboard.press(" ")
        at = step(page)
        page.keyboard.press("a", delay=40)  # also while it is paused
        page.keyboard.press(".")
        until(page, f"data.step >= {at + 1}")
        page.keyboard.press(".")
        until(page, f"data.step >= {at + 2}")
        page.keyboard.press("n")
        page.keyboard.press("d", delay=40)  # takes over from the actor
        page.keyboard.press(".")
        until(page, f"data.step >= {at + 3} && data.who === 'me'")
    assert taken.count(1) == 7 and taken[-3:] == [-1, 0, 1]


def test_many_numbers_come_in_groups_for_the_keys(page: Any) -> None:
    def make() -> PlayerSession:
        records, size = 8, 38
        rows = [(0, 255, (records, 3, 16, 16), np.uint8), (0, 1, (records, size), np.float32)]
        image, action = (np.random.default_rng(0).uniform(a, b, shape).astype(kind) for a, b, shape, kind in rows)
        episode = Recorded("one", image, action, np.zeros(records, np.float32))
        return PlayerSession(parted(size), ActionSpec(size, False), [episode], name="runs/many: a task of 38")

    with served(make) as address:
        opened(page, address)
        assert page.title().startswith("runs/many: a task of 38") and page.locator("[data-does='real']").is_enabled()
        assert page.evaluate("document.documentElement.scrollHeight") == 800
        shown = "[...document.querySelectorAll('input[data-action]')].filter(x => x.offsetParent)"
        shown += ".map(x => +x.dataset.action)"
        assert page.evaluate(shown) == [0, 1, 2, 3, 4, 5] and page.locator(".wm-group").count() == 8
        page.keyboard.press("]")
        page.keyboard.press("]")
        assert page.evaluate(shown) == [12, 13, 14, 15, 16, 17]
        page.locator("[data-action='14']").fill("0.5")
        page.keyboard.press(" ")
        page.locator("[data-group='6']").click()
        assert page.evaluate(shown) == [36, 37]
        page.keyboard.down("w")
        for group, moved in ((2, "true"), (5, "false"), (6, "true")):
            assert page.locator(f"[data-group='{group}']").get_attribute("data-moved") == moved
        page.keyboard.press("0")
        assert page.locator("[data-moved='true']").count() == 0
        page.keyboard.press(".")
        until(page, "data.who === 'me'")
        assert not page.locator("[data-does='real']").is_enabled()  # no simulator runs here


def test_the_real_frame_is_shown_again(page: Any) -> None:
    with served() as address:
        opened(page, address)
        page.keyboard.down("d")
        until(page, "data.step >= 5")
        page.keyboard.up("d")
        page.keyboard.press(" ")
        page.wait_for_timeout(200)
        dream, truth = (page.evaluate(PICTURE, name) for name in ("dream", "truth"))
        page.keyboard.press("e")
        until(page, "data.step == 0 && data.who === 'record'")
        assert page.evaluate(PICTURE, "truth") == truth and page.evaluate(PICTURE, "dream") != dream
        assert page.locator(".wm-trust").inner_text() == "A dream begins."
        page.locator("[data-does='single']").click()
        until(page, "data.step == 1")
        page.locator("[data-does='real']").click()
        until(page, "data.step == 0")


@pytest.mark.parametrize(
    ("behind", "text"), [(True, "Dream and truth have parted"), (False, "likely no better by now")]
)
def test_the_page_says_when_dream_and_truth_have_parted(page: Any, behind: bool, text: str) -> None:
    class Parted(PlayerSession):
        def step(self, action: Any = None) -> Frame:
            return super().step(action)._replace(behind=behind, lost=True)

    with served(lambda: session_of(Parted)) as address:
        opened(page, address)
        outline = "document.querySelector('.wm-dream').parentElement.style.outline"
        assert "not known" not in page.locator(".wm-trust").inner_text() and page.evaluate(outline) == ""
        page.keyboard.press(".")
        until(page, "data.step == 1 && data.trusted === 'false'")
        assert text in page.locator(".wm-trust").inner_text() and "4px" in page.evaluate(outline)
        page.keyboard.press("e")
        until(page, "data.step == 0")
        assert page.locator(".wm-trust").inner_text() == "A dream begins." and page.evaluate(outline) == ""


def test_others_can_drive_and_a_slider_takes_over(page: Any) -> None:
    with served() as address:
        opened(page, address)
        for key, who in (("n", "actor"), ("p", "planner"), ("m", "me")):
            page.keyboard.press(key)
            page.keyboard.press(".")
            until(page, f"data.who === '{who}'")
            assert page.locator(f"[data-does='{who}']").get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="actor").click()
        page.keyboard.press(" ")
        until(page, "data.who === 'actor' && data.step > 4")
        page.locator("[data-action='1']").fill("-0.5")
        until(page, "data.who === 'me'")
        assert page.locator("[data-action='1']").input_value() == "-0.5"


def test_a_dream_can_begin_in_any_real_frame(page: Any) -> None:
    with served() as address:
        opened(page, address)
        begin = page.evaluate(PICTURE, "truth")
        page.keyboard.press(".")
        until(page, "data.step == 1")
        page.locator(".wm-strip button").nth(5).click()
        until(page, "data.step == 0")
        assert page.evaluate(PICTURE, "truth") != begin
        record = page.locator(".wm-strip button").nth(5).get_attribute("data-record")
        assert page.locator(".wm-strip [aria-pressed='true']").get_attribute("data-record") == record
        page.keyboard.press(".")
        until(page, "data.step == 1")
        page.get_by_label("record", exact=True).fill("31")
        until(page, "data.step == 0")
        page.keyboard.press(".")
        until(page, "data.step == 1")
        assert not page.locator(".wm-gone").is_visible()
        page.keyboard.press(".")
        until(page, "data.step == 2")
        assert page.get_by_text("The real episode is over.").is_visible()
        page.get_by_label("episode").select_option("1")
        until(page, "data.step == 0")
        assert not page.locator(".wm-gone").is_visible()


def test_discrete_actions_are_buttons_and_numbers(page: Any) -> None:
    with served(lambda: make_session(CHOICES)) as address:
        opened(page, address)
        assert page.locator("button[data-action]").count() == 5
        chosen = page.locator("button[data-action][aria-pressed='true']")
        assert chosen.get_attribute("data-action") == "0"
        page.keyboard.press("3")
        until(page, "data.step >= 8")
        page.keyboard.press(" ")
        assert chosen.get_attribute("data-action") == "3"
        page.locator("button[data-action='4']").click()
        page.keyboard.press(".")
        page.wait_for_timeout(50)
        assert chosen.get_attribute("data-action") == "4"


def test_the_tab_is_told_when_the_player_stops(page: Any) -> None:
    with served() as address:
        opened(page, address)
        assert not page.get_by_text("The player has stopped.").is_visible()
    page.wait_for_selector("text=The player has stopped.")
    assert page.get_by_text("The player has stopped.").is_visible()
