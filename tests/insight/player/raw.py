"""A client of the player that keeps to no rule: bytes on a socket."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.insight.player.test_server import unpacked

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


class Raw:
    """A connection to a player's address."""

    def __init__(self, address: str) -> None:
        self.host = urlsplit(address).netloc
        name, _, port = self.host.partition(":")
        self.socket = socket.create_connection((name, int(port)), timeout=20)
        self._rest = b""

    def send(self, *pieces: bytes) -> None:
        """Send pieces as far as they are taken."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.socket.sendall(piece)

    def request(self, line: str, *headers: str, body: bytes = b"") -> None:
        """A request of this line; the ``Host`` is right unless a header gives one, or says that there is none."""
        own = () if any(x.lower().startswith(("host", "no host")) for x in headers) else (f"Host: {self.host}",)
        head = "\r\n".join([line, *own, *(x for x in headers if x != "no host")])
        self.send(head.encode("latin-1") + b"\r\n\r\n" + body)

    def upgrade(self, *headers: str, version: str = "13") -> None:
        """Ask for a websocket."""
        key = () if "no key" in headers else ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",)
        more = (f"Sec-WebSocket-Version: {version}", *key, *(x for x in headers if x != "no key"))
        self.request("GET /session HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", *more)

    def open(self) -> Raw:
        """Become a tab."""
        self.upgrade()
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._receive()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101")
        return self

    def say(self, message: Any) -> None:
        self.send(frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode()))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of what comes, until the connection is closed."""
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                first, second = self._take(2)
                length = second & 127
                if length > 125:
                    length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
                yield first & 15, self._take(length)

    def answer(self) -> dict[str, Any] | None:
        """The next answer of the player; None where it hangs up."""
        return next((unpacked(data)[0] for opcode, data in self.frames() if opcode == BINARY), None)

    def ending(self) -> bytes:
        """All that comes until the other side hangs up, or is silent for the socket's timeout."""
        found = self._rest
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := self.socket.recv(65536):
                found += piece
        return found

    def leave(self) -> None:
        """Go without a word: the other side sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._rest += self._receive()
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _receive(self) -> bytes:
        if not (piece := self.socket.recv(65536)):
            raise EOFError
        return piece


def frame(opcode: int, payload: bytes = b"", *, mask: bool = True, end: bool = True, reserved: int = 0) -> bytes:
    """A frame of a websocket as a client sends it (RFC 6455, 5.2); the mask is zeros."""
    return header(opcode, len(payload), mask=mask, end=end, reserved=reserved) + payload


def header(opcode: int, length: int, *, mask: bool = True, end: bool = True, reserved: int = 0) -> bytes:
    """What stands before the payload, which may be shorter than it says."""
    first = bytes([end << 7 | reserved << 4 | opcode])
    if length < 126:
        size = bytes([mask << 7 | length])
    elif length < 1 << 16:
        size = bytes([mask << 7 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([mask << 7 | 127]) + length.to_bytes(8, "big")
    return first + size + (b"\0\0\0\0" if mask else b"")
