"""Tabs that go, do not read or say nothing: they are left, nothing stays behind, and other tabs go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.insight.player.attack.conftest import MiB, resident, waits_for_room
from tests.insight.player.raw import PING, TEXT, Raw, frame, header
from tests.insight.player.test_server import RESET, get
from worldmodel.insight.player import server

LEAVING: list[tuple[str, Callable[[Raw], None]]] = [
    ("at once", lambda client: None),
    ("in the handshake", lambda client: client.request("GET /session HTTP/1.1", "Connection: Upgrade")),
    ("after the handshake", lambda client: client.upgrade()),
    ("in a message", lambda client: client.open().send(header(TEXT, 1000), b"{")),
    ("before the answer", lambda client: client.open().say(RESET)),
    ("before many answers", lambda client: [client.open(), *(client.say(RESET) for _ in range(50))]),  # type: ignore[list-item, return-value]
    ("in the page", lambda client: client.request("GET /player.js HTTP/1.1")),
]


@pytest.mark.parametrize("act", [x[1] for x in LEAVING], ids=[x[0] for x in LEAVING])
@pytest.mark.parametrize("word", [False, True], ids=["without a word", "closed"])
def test_one_that_leaves(address: str, act: Callable[[Raw], None], word: bool) -> None:
    for _ in range(3):
        client = Raw(address)
        act(client)
        client.socket.close() if word else client.leave()
    waits_for_room(address).leave()


def test_fifty_tabs(address: str) -> None:
    waits_for_room(address).leave()
    clients = [Raw(address).open() for _ in range(50)]
    said = []
    for client in clients:
        client.say({"type": "hello"})
        found = client.answer()
        said.append(None if found is None else found["type"])
    assert 1 <= said.count("setup") < server.TABS and said.count("refused") == 50 - said.count("setup")  # one plays
    for client in clients:
        client.leave()
    waits_for_room(address).leave()


def test_half_open_handshakes(address: str) -> None:
    clients = [Raw(address) for _ in range(300)]
    for client in clients:
        client.send(b"GET /session HTTP/1.1\r\n")
    until = time.monotonic() + 20
    while True:  # those that ask for nothing are left in time
        try:
            assert get(address)[0] == 200
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
    for client in clients:
        client.ending()
        client.leave()


@pytest.mark.parametrize("what", ["answers", "pongs"])
def test_one_that_never_reads_is_left(address: str, what: str) -> None:
    before, client = resident(), waits_for_room(address)
    ask_again = frame(TEXT, json.dumps(RESET).encode()) if what == "answers" else frame(PING, bytes(125))
    client.socket.settimeout(0.1)
    until = time.monotonic() + 60
    while time.monotonic() < until:  # as long as it takes anything
        try:
            client.socket.send(ask_again * 100)
        except TimeoutError:
            continue
        except ConnectionError:
            break
    assert time.monotonic() < until and resident() - before < 64 * MiB
    client.leave()
    waits_for_room(address).leave()


def test_one_that_is_silent_is_left(address: str) -> None:
    with waits_for_room(address) as client:
        opcodes = [opcode for opcode, _ in client.frames()]
        assert opcodes and opcodes[0] == PING  # which it does not answer
