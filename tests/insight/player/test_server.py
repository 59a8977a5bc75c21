from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.insight.player.conftest import make_session, served
from worldmodel.errors import UserError
from worldmodel.insight.player.server import ADDRESS, TABS, listen
from worldmodel.insight.player.session import Frame, PlayerSession

RESET = {"type": "reset", "episode": 0, "record": 4}


def talk(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a client in a thread of its own: a browser's loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def unpacked(data: bytes) -> tuple[dict[str, Any], int]:
    """An answer, and the bytes that follow it."""
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    assert sum(head["sizes"]) == len(data) - 4 - length
    return head["content"], sum(head["sizes"])


async def ask(ws: aiohttp.ClientWebSocketResponse, message: Any) -> dict[str, Any]:
    await ws.send_str(message if isinstance(message, str) else json.dumps(message))
    return unpacked(await ws.receive_bytes())[0]


def get(address: str, path: str = "/", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_the_page_and_what_belongs_to_it() -> None:
    with served() as address:
        kinds = {"/": "text/html", "/page.js": "text/javascript", "/player.js": "text/javascript"}
        for path, kind in (kinds | {"/player.css": "text/css"}).items():
            status, headers, text = get(address, path)
            assert (
                status == 200
                and headers["Content-Type"].startswith(kind)
                and "default-src 'none'" in headers["Content-Security-Policy"]
            )
            assert "http://" not in text and "https://" not in text  # nothing from a network
        for path in ("/session.py", "/static/page.js", "/../server.py", "/drawing.js"):
            assert get(address, path)[0] == 404


def test_other_sites_are_refused() -> None:
    with served() as address:
        netloc = urlsplit(address).netloc
        port = netloc.partition(":")[2]
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for path, extra, done in (("/", {}, 200), ("/session", upgrade, 101)):
            for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", f"0.0.0.0:{port}", "[", ""):
                assert get(address, path, Host=host, **extra)[0] in (400, 403), host
            others = (
                "http://evil.example",
                f"https://{netloc}",
                "null",
                "http://127.0.0.1:1",
                f"http://localhost:{port}",
            )
            for origin in others:
                status, _, text = get(address, path, Host=netloc, Origin=origin, **extra)
                assert status == 403 and "its own page on this machine only" in text, origin
            for host in (netloc, f"localhost:{port}", f"[::1]:{port}", "localhost:9999"):  # the last through a tunnel
                assert get_status(address, path, Host=host, Origin=f"http://{host}", **extra) == done
                assert get_status(address, path, Host=host, **extra) == done


def get_status(address: str, path: str, **headers: str) -> int:
    """As ``get``, without waiting for a websocket to end."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request("GET", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_listens_on_this_machine_only_and_a_taken_port_is_told() -> None:
    with listen(0) as listener:
        address, port = listener.getsockname()
        assert address == ADDRESS == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):  # all of 127.0.0.0/8 would answer to 0.0.0.0
            socket.create_connection(("127.0.0.2", port), timeout=5)
        with pytest.raises(UserError, match=f"port {port} is taken, perhaps by another player: give another --port"):
            listen(port)
    listen(port).close()  # it is free again
    for port in (-1, 65536, 99999):
        with pytest.raises(UserError, match=f"port is {port}: it must be from 1 to 65535"):
            listen(port)


def test_a_conversation_in_a_tab() -> None:
    async def converse(address: str) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}session") as ws:
            messages = ({"type": "hello"}, RESET, {"type": "step", "who": "planner"}, "{no json", {"type": "nothing"})
            answers = [await ask(ws, message) for message in messages]
            await ws.send_bytes(b"no text")
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            return answers

    with served() as address:
        answers = talk(converse(address))
    assert [x["type"] for x in answers] == ["setup", "frame", "frame", "error", "error"]
    assert answers[2]["who"] == "planner" and answers[2]["step"] == 1


def test_each_tab_has_its_own_session_and_too_many_are_refused() -> None:
    closed: list[PlayerSession] = []
    threads: set[str] = set()

    class Counted(PlayerSession):
        def step(self, action: Any = None) -> Frame:
            threads.add(threading.current_thread().name)
            return super().step(action)

        def close(self) -> None:
            threads.add(threading.current_thread().name)
            closed.append(self)
            super().close()

    def make() -> PlayerSession:
        threads.add(threading.current_thread().name)
        session = make_session()
        session.__class__ = Counted
        return session

    async def converse(address: str) -> None:
        async with aiohttp.ClientSession() as client:
            sockets = [await client.ws_connect(f"{address}session") for _ in range(TABS)]
            for ws in sockets:
                assert (await ask(ws, RESET))["step"] == 0
            steps = [
                [await ask(ws, {"type": "step", "action": [n, 0]}) for _ in range(n + 1)]
                for n, ws in enumerate(sockets)
            ]
            assert [x[-1]["step"] for x in steps] == [1, 2, 3, 4] and steps[0][0] != steps[1][0]
            more = await client.ws_connect(f"{address}session")
            assert unpacked(await more.receive_bytes())[0] == {
                "type": "refused",
                "text": f"{TABS} players are open already: close one",
            }
            assert (await more.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            await sockets[1].close()
            while not closed:
                await asyncio.sleep(0.01)
            again = await client.ws_connect(f"{address}session")
            assert (await ask(again, {"type": "hello"}))["type"] == "setup"

    with served(make) as address:
        talk(converse(address))
    assert len(closed) == TABS + 1 and len(threads) == 1


def test_the_page_stays_live_while_the_model_works() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(PlayerSession):
        def reset(self, episode: int = 0, record: int = 0) -> Frame:
            begun.set()
            assert go_on.wait(30)
            return super().reset(episode, record)

    def make() -> PlayerSession:
        session = make_session()
        session.__class__ = Slow
        return session

    async def converse(address: str) -> int:
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}session") as ws:
            await ws.send_str(json.dumps(RESET))
            await asyncio.to_thread(begun.wait, 30)
            async with client.get(address) as page:
                status = page.status
            go_on.set()
            assert unpacked(await ws.receive_bytes())[0]["step"] == 0
            return status

    with served(make) as address:
        assert talk(converse(address)) == 200


def test_why_no_session_can_be_made_is_told() -> None:
    def make() -> PlayerSession:
        raise UserError("cannot render")

    async def converse(address: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}session") as ws:
            return unpacked(await ws.receive_bytes())[0]

    with served(make) as address:
        assert talk(converse(address)) == {"type": "refused", "text": "cannot render"}
