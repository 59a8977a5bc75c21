"""A player, a tab that goes on in it whatever others do, and what was said in the terminal meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.insight.player.conftest import served
from tests.insight.player.raw import Raw
from tests.insight.player.test_server import RESET, ask, get
from worldmodel.insight.player import server

SOON = 1.0  # seconds of patience in these tests
MiB = 2**20


class Steady:
    """A tab that plays on in a thread of its own, as a browser does."""

    def __init__(self, address: str) -> None:
        self.steps, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._play(address)))
        self._thread.start()

    async def _play(self, address: str) -> None:
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}session") as ws:
            await ask(ws, RESET)
            while not self._ended.is_set():
                assert (await ask(ws, {"type": "step", "action": [0, 0]}))["type"] == "frame"
                self.steps += 1
                await asyncio.sleep(0.005)

    def goes_on(self) -> bool:
        before, until = self.steps, time.monotonic() + 20
        while self.steps <= before and time.monotonic() < until and self._thread.is_alive():
            time.sleep(0.003)
        return self.steps > before

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


class Kept(logging.Handler):
    """What a terminal would show."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[str, Steady, Kept]]:
    """A player, a tab that plays on in it, and what was logged."""
    log = Kept()
    logging.getLogger().addHandler(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "PATIENCE", SOON)
        with served() as address:
            steady = Steady(address)
            yield address, steady, log
            steady.end()
    logging.getLogger().removeHandler(log)


@pytest.fixture
def address(page: tuple[str, Steady, Kept], capfd: pytest.CaptureFixture[str]) -> Iterator[str]:
    """Its address; afterwards the other tab goes on, and nothing was said in the terminal."""
    found, steady, log = page
    yield found
    assert steady.goes_on() and get(found)[0] == 200
    said = [log.said.pop() for _ in range(len(log.said))]
    assert not said and capfd.readouterr().err == ""


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def waits_for_room(address: str) -> Raw:
    """A tab, once there is room for one."""
    until = time.monotonic() + 20
    while True:
        client = Raw(address).open()
        client.say({"type": "hello"})
        if (found := client.answer()) is not None and found["type"] == "setup":
            return client
        client.leave()
        assert time.monotonic() < until
        time.sleep(0.1)
