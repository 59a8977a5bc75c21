"""The player as a page, for this machine only: a session for each tab, and one thread in which all of them step.

The address is the loopback's. A page of another site that a browser shows could still talk to it, under a name that it
points here or by a websocket; so a request whose Host is not this machine, or whose Origin is not the page, is refused.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from worldmodel.errors import UserError
from worldmodel.insight.player.component import STATIC, script, style
from worldmodel.insight.player.messages import answer
from worldmodel.insight.player.session import PlayerSession

ADDRESS = "127.0.0.1"
TABS = 4  # a session has a simulator of its own

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
    runner = web.AppRunner(application(make_session, executor), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class _Player:
    """All tabs."""

    def __init__(self, make_session: MakeSession, executor: Executor) -> None:
        self._make, self._executor = make_session, executor
        self._sockets: set[web.WebSocketResponse] = set()

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        """One tab's conversation."""
        ws = web.WebSocketResponse(max_msg_size=_LONGEST)
        await ws.prepare(request)
        if len(self._sockets) >= TABS:
            await ws.send_bytes(pack({"type": "refused", "text": f"{TABS} players are open already: close one"}, []))
            await ws.close()
            return ws
        self._sockets.add(ws)
        session: PlayerSession | None = None
        try:
            session = await self._run(self._make)
            async for message in ws:
                if message.type is not WSMsgType.TEXT:
                    break
                await ws.send_bytes(pack(*await self._run(answer, session, _read(message.data))))
        except UserError as cause:  # no session could be made
            await ws.send_bytes(pack({"type": "refused", "text": str(cause)}, []))
        except ConnectionResetError:  # the tab was closed
            pass
        finally:
            self._sockets.discard(ws)
            if session is not None:
                await self._run(session.close)
        return ws

    async def hang_up(self, app: web.Application) -> None:
        for ws in list(self._sockets):
            await ws.close()

    async def _run(self, function: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *given)


def pack(content: dict[str, Any], buffers: list[bytes]) -> bytes:
    """An answer as bytes: length of the JSON (4, little endian), the JSON with the buffers' sizes, the buffers."""
    head = json.dumps({"content": content, "sizes": [len(x) for x in buffers]}, allow_nan=False).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *buffers])


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def _file(request: web.Request) -> web.Response:
    read, kind = _FILES[request.path]
    return web.Response(text=read(), content_type=kind, headers=_HEADERS)


@web.middleware
async def _from_this_machine(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    origin = request.headers.get("Origin")
    if not _is_local(request.host) or (origin is not None and origin.lower() != f"http://{request.host.lower()}"):
        return web.Response(status=403, text="the player talks to its own page on this machine only\n")
    return await handler(request)


def _is_local(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _LOCAL
    except ValueError:
        return False
