"""The player as a page, for this machine only: a session for each tab, and one thread in which all of them step.

The address is the loopback's. A page of another site that a browser shows could still talk to it, under a name that it
points here or by a websocket; so a request whose Host is not this machine, or whose Origin is not the page, is refused.
Whatever comes in, memory stays bounded and others go on: messages are short and few, who does not read is left.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web
from aiohttp.http import HttpProcessingError

from worldmodel.errors import UserError
from worldmodel.insight.player.component import STATIC, script, style
from worldmodel.insight.player.messages import answer
from worldmodel.insight.player.session import PlayerSession

ADDRESS = "127.0.0.1"
TABS = 4  # a session has a simulator of its own
PATIENCE = 20.0  # seconds for who asks for nothing, does not read, or does not answer a ping

_FILES: dict[str, tuple[Callable[[], str], str]] = {
    "/": ((STATIC / "index.html").read_text, "text/html"),
    "/page.js": ((STATIC / "page.js").read_text, "text/javascript"),
    "/player.js": (script, "text/javascript"),
    "/player.css": (style, "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_LONGEST = 1 << 16  # bytes of a message from a page
_CONNECTIONS = 64  # open ones, tabs and half-open ones together

MakeSession = Callable[[], PlayerSession]


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; 0 takes any port that is free.

    Raises:
        UserError: there is no such port, or it is taken or forbidden.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}: it must be from 1 to 65535, or 0 for any that is free")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left can be taken
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as cause:
        listener.close()
        if cause.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken, perhaps by another player: give another --port") from cause
        raise UserError(f"port {port} cannot be opened ({cause.strerror}): give another --port") from cause
    return listener


def application(make_session: MakeSession, executor: Executor) -> web.Application:
    """The page and its websocket.

    Args:
        make_session: called once for each tab.
        executor: of one thread; sessions are made, stepped and closed there, so that the page stays live.
    """
    app = web.Application(middlewares=[_from_this_machine])
    player = _Player(make_session, executor)
    for path in _FILES:
        app.router.add_get(path, _file)
    app.router.add_get("/session", player.talk)
    app.on_shutdown.append(player.hang_up)
    return app


async def serve(make_session: MakeSession, executor: Executor, listener: socket.socket) -> None:
    """Serve until cancelled; sessions are then closed."""
    runner = web.AppRunner(
        application(make_session, executor),
        access_log=None,
        logger=_log(),
        shutdown_timeout=1,
        keepalive_timeout=PATIENCE,
        auto_decompress=False,  # nobody reads what is sent with a request
    )
    await runner.setup()
    web_server = runner.server
    assert web_server is not None

    def connection() -> asyncio.Protocol:
        return web_server() if len(web_server.connections) < _CONNECTIONS else _Full()

    door = await asyncio.get_running_loop().create_server(connection, sock=listener)
    try:
        await _leave_who_does_not_read(web_server)
    finally:
        door.close()
        await runner.cleanup()


async def _leave_who_does_not_read(web_server: web.Server) -> None:
    """End connections whose answers have not moved for long, and never end itself."""
    before: dict[asyncio.Transport, int] = {}
    while True:
        await asyncio.sleep(PATIENCE / 2)
        transports = [x.transport for x in web_server.connections if x.transport is not None]
        waiting = {x: x.get_write_buffer_size() for x in transports}
        for transport, size in waiting.items():
            if 0 < before.get(transport, 0) <= size:
                transport.abort()  # to close it, one would wait for who does not read
        before = waiting


class _Full(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _log() -> logging.Logger:
    """What goes wrong here is told; what is no HTTP, or was not waited for, is not."""
    log, theirs = logging.getLogger(__name__), (HttpProcessingError, ConnectionError)
    if not log.filters:
        log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], theirs)))
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)  # no warnings of protocols that nobody speaks
    return log


class _Player:
    """All tabs."""

    def __init__(self, make_session: MakeSession, executor: Executor) -> None:
        self._make, self._executor = make_session, executor
        self._sockets: set[web.WebSocketResponse] = set()

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        """One tab's conversation."""
        ws = web.WebSocketResponse(max_msg_size=_LONGEST, heartbeat=PATIENCE, timeout=1, compress=False)
        await ws.prepare(request)
        with suppress(ConnectionResetError):  # the tab was closed
            if len(self._sockets) >= TABS:
                await self._refuse(ws, f"{TABS} players are open already: close one")
                return ws
            self._sockets.add(ws)
            try:
                await self._converse(ws)
            except UserError as cause:  # no session could be made
                await self._refuse(ws, str(cause))
            finally:
                self._sockets.discard(ws)
        return ws

    async def _converse(self, ws: web.WebSocketResponse) -> None:
        session = await self._run(self._make)
        try:
            async for message in ws:
                if message.type is not WSMsgType.TEXT:
                    break
                await ws.send_bytes(pack(*await self._run(answer, session, _read(message.data))))
        finally:
            await self._run(session.close)

    async def _refuse(self, ws: web.WebSocketResponse, why: str) -> None:
        await ws.send_bytes(pack({"type": "refused", "text": why}, []))
        await ws.close()

    async def hang_up(self, app: web.Application) -> None:
        if self._sockets:
            await asyncio.wait([asyncio.ensure_future(ws.close()) for ws in self._sockets], timeout=1)

    async def _run(self, function: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *given)


def pack(content: dict[str, Any], buffers: list[bytes]) -> bytes:
    """An answer as bytes: length of the JSON (4, little endian), the JSON with the buffers' sizes, the buffers."""
    head = json.dumps({"content": content, "sizes": [len(x) for x in buffers]}, allow_nan=False).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *buffers])


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


async def _file(request: web.Request) -> web.Response:
    read, kind = _FILES[request.path]
    return web.Response(text=read(), content_type=kind, headers=_HEADERS)


@web.middleware
async def _from_this_machine(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
    if not _is_local(host) or (origin is not None and origin.lower() != f"http://{host.lower()}"):
        return web.Response(status=403, text="the player talks to its own page on this machine only\n")
    return await handler(request)


def _is_local(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _LOCAL
    except ValueError:
        return False
