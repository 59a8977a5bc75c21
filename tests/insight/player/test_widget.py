"""The notebook's widget in a real browser, with its own messages but without a kernel."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.insight.player.conftest import make_session
from tests.insight.player.test_page import PICTURE, ROOT, until
from worldmodel.errors import UserError

widgets = pytest.importorskip("ipywidgets")
comm = pytest.importorskip("comm")

SHIM = """async () => {
  const handlers = new Set();
  const view = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const model = {
    get() {}, set() {}, save_changes() {},
    on(event, handler) { if (event === "msg:custom") handlers.add(handler); },
    off(event, handler) { handlers.delete(handler); },
    async send(content) {
      const answers = await window.python(content);
      answers.forEach(([content, buffers]) => handlers.forEach((handler) => handler(content, buffers.map(view))));
    },
  };
  const component = (await import("/widget.js")).default;
  window.leave = await component.render({ model, el: document.body });
  window.handlers = handlers;
}"""


class Wire(comm.base_comm.BaseComm):
    """Keeps what a widget would send to its page."""

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        sent.append((msg_type, data, buffers or []))


sent: list[tuple[str, Any, list[bytes]]] = []


def told(player: Any, content: Any) -> None:
    player.comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


@pytest.fixture
def player(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from worldmodel.insight.player.widget import Player

    sent.clear()
    monkeypatch.setattr(comm, "create_comm", Wire)
    made = Player(make_session())
    yield made
    made.close()


def test_the_widget_is_the_component_driven_by_messages(player: Any, page: Any) -> None:
    def python(content: Any) -> list[Any]:
        """What a kernel does: hand a message to the widget, and its answers back."""
        sent.clear()
        told(player, content)
        answers = [(data["content"], buffers) for _, data, buffers in sent if data["method"] == "custom"]
        return [[content, [base64.b64encode(b).decode() for b in buffers]] for content, buffers in answers]

    def fulfil(route: Any) -> None:
        script = route.request.url.endswith("widget.js")
        body = player._esm if script else f"<!doctype html><style>{player._css}</style><body></body>"
        route.fulfill(body=body, content_type="text/javascript" if script else "text/html")

    page.route("**/*", fulfil)
    page.expose_function("python", python)
    page.goto("http://notebook.test/")
    page.evaluate(SHIM)
    page.wait_for_selector(".wm-strip button")
    until(page, "data.who === 'record'")
    begin = page.evaluate(PICTURE, "dream")
    page.locator(ROOT).focus()
    page.keyboard.down("d")
    until(page, "data.step >= 3")
    page.keyboard.up("d")
    page.keyboard.press(" ")
    assert page.evaluate(PICTURE, "dream") != begin
    page.keyboard.press("n")
    page.keyboard.press(".")
    until(page, "data.who === 'actor'")
    page.locator(".wm-strip button").nth(3).click()
    until(page, "data.step == 0")
    assert player.session.driver == "actor"
    page.evaluate("window.leave()")
    assert page.evaluate("window.handlers.size") == 0


def test_a_view_listens_to_its_own_answers_only(player: Any) -> None:
    for view in ("a", "b"):
        told(player, {"type": "hello", "view": view})
    assert [data["content"]["view"] for _, data, _ in sent if data.get("method") == "custom"] == ["a", "b"]


def test_without_anywidget_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "worldmodel.insight.player.widget", raising=False)
    with pytest.raises(
        UserError, match=r"^the player in a notebook needs anywidget: pip install 'worldmodel\[notebook\]'$"
    ):
        importlib.import_module("worldmodel.insight.player.widget")
