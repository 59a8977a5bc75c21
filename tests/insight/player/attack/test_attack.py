"""What a stranger may send to the player: it is answered or left, nothing stays behind, and other tabs go on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.insight.player.attack.conftest import MiB, resident, waits_for_room
from tests.insight.player.conftest import make_session
from tests.insight.player.raw import BINARY, CLOSE, PING, TEXT, Raw, frame, header
from tests.insight.player.test_server import RESET, unpacked
from worldmodel.insight.player.messages import answer


def sends(*pieces: bytes) -> Callable[[Raw], None]:
    return lambda client: client.send(*pieces)


def asks(line: str, *headers: str, body: bytes = b"") -> Callable[[Raw], None]:
    return lambda client: client.request(line, *headers, body=body)


GET = "GET / HTTP/1.1"
TLS = bytes.fromhex("16030100a5010000a10303") + bytes(range(150))
REQUESTS: list[tuple[str, Callable[[Raw], None], bytes | None]] = [  # and the status; None: it may be left
    ("noise", sends(bytes(range(256)) * 8), None),
    ("TLS", sends(TLS), b"400"),
    ("zeros", sends(bytes(4096)), b"400"),
    ("an empty line", sends(b"\r\n\r\n\r\n"), None),
    ("half a request", sends(b"GET / HT"), None),
    ("nothing", sends(), None),
    ("no end of the headers", sends(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "), None),
    ("HTTP/0.9", sends(b"GET /\r\n\r\n"), None),
    ("HTTP/9.9", asks("GET / HTTP/9.9"), b"400"),
    ("no method", asks("\x01\x02 / HTTP/1.1"), b"400"),
    ("no path", asks("GET  HTTP/1.1"), b"400"),
    ("a line of 100 kB", asks(f"GET /{'x' * 100_000} HTTP/1.1"), b"400"),
    ("a header of 100 kB", asks(GET, "X: " + "x" * 100_000), b"400"),
    ("10,000 headers", asks(GET, *(f"X{i}: 1" for i in range(10_000))), b"400"),
    ("a header without a colon", asks(GET, "nothing here"), b"400"),
    ("a header with NUL", asks(GET, "X: a\0b"), b"400"),
    ("a header in two lines", asks(GET, "X: a\r\n b"), b"400"),
    ("no host", asks(GET, "no host", "Connection: close"), None),
    ("no host, HTTP/1.0", asks("GET / HTTP/1.0", "no host"), b"403"),
    ("two hosts", asks(GET, "Host: 127.0.0.1", "Host: evil.example", "Connection: close"), None),
    ("a host with brackets", asks(GET, "Host: [::1", "Connection: close"), b"403"),
    ("a host of letters", asks(GET, "Host: \xff\xfe", "Connection: close"), None),
    ("an origin of letters", asks(GET, "Origin: \xff\xfe", "Connection: close"), b"403"),
    ("a path outside", asks("GET /../../etc/passwd HTTP/1.1", "Connection: close"), b"404"),
    ("a path outside in percent", asks("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "Connection: close"), b"404"),
    ("percents that are none", asks("GET /%zz%00 HTTP/1.1", "Connection: close"), None),
    ("a path of bytes", asks("GET /\xff\xfe HTTP/1.1", "Connection: close"), None),
    ("another site's address", asks("GET http://evil.example/ HTTP/1.1", "Connection: close"), None),
    ("a tunnel", asks("CONNECT evil.example:80 HTTP/1.1"), None),
    ("everything", asks("OPTIONS * HTTP/1.1", "Connection: close"), None),
    ("a DELETE", asks("DELETE / HTTP/1.1", "Connection: close"), b"405"),
    (
        "10 MB",
        asks("POST / HTTP/1.1", f"Content-Length: {10 * MiB}", "Connection: close", body=bytes(10 * MiB)),
        b"405",
    ),
    ("a length below 0", asks("POST / HTTP/1.1", "Content-Length: -5"), b"400"),
    ("two lengths", asks("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6", body=b"123456"), b"400"),
    ("a length and chunks", asks("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"), b"400"),
    ("a length of 10,000 digits", asks("POST / HTTP/1.1", "Content-Length: " + "9" * 10_000), b"400"),
    ("chunks that are none", asks("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"zz\r\nxx"), None),
    (
        "garbage in gzip",
        asks("POST / HTTP/1.1", "Content-Encoding: gzip", "Content-Length: 9", body=b"garbage!!"),
        None,
    ),
    ("200 requests at once", sends((GET + "\r\nHost: 127.0.0.1\r\n\r\n").encode() * 200), b"200"),
    ("a websocket elsewhere", asks(GET, "Connection: Upgrade", "Upgrade: websocket"), None),
    ("an upgrade to something else", asks(GET, "Connection: Upgrade", "Upgrade: h2c"), None),
    ("an upgrade without a key", lambda client: client.upgrade("no key", "Connection: close"), b"400"),
    ("an upgrade of version 99", lambda client: client.upgrade(version="99"), b"400"),
    ("no upgrade", asks("GET /session HTTP/1.1", "Connection: close"), b"400"),
]


@pytest.mark.parametrize(("attack", "status"), [x[1:] for x in REQUESTS], ids=[x[0] for x in REQUESTS])
def test_requests(address: str, attack: Callable[[Raw], None], status: bytes | None) -> None:
    with Raw(address) as client:
        attack(client)
        client.socket.settimeout(0.2)  # what comes late, or never, is another test's
        said = client.ending()
    found = re.match(rb"HTTP/\d\.\d (\d+) ", said)
    assert found[1] == status if found and status else found or not said
    assert b"Traceback" not in said and b"root:" not in said


FRAMES: list[tuple[str, list[bytes]]] = [
    ("no mask", [frame(TEXT, b"{}", mask=False), frame(CLOSE)]),
    ("reserved bits", [frame(TEXT, b"{}", reserved=3)]),
    ("compressed though it was not agreed on", [frame(TEXT, b"{}", reserved=4)]),
    ("an unknown kind", [frame(3, b"{}")]),
    ("another unknown kind", [frame(15, b"{}")]),
    ("bytes", [frame(BINARY, b"\0\1\2")]),
    ("a ping of 1,000 bytes", [frame(PING, bytes(1000))]),
    ("a ping in pieces", [frame(PING, b"x", end=False)]),
    ("what follows nothing", [frame(0, b"{}")]),
    ("a text inside another", [frame(TEXT, b"{", end=False), frame(TEXT, b"}")]),
    ("a text that is none", [frame(TEXT, b"\xff\xfe\xfd")]),
    ("half a letter", [frame(TEXT, "\u00e9".encode()[:1])]),
    ("10 MB", [frame(TEXT, b"[" + bytes(10 * MiB))]),
    ("10 MB in pieces", [frame(TEXT, b"[", end=False), *[frame(0, b" " * 1000, end=False)] * 10_000]),
    (
        "nothing in 100,000 pieces",
        [frame(TEXT, b"", end=False), *[frame(0, b"", end=False)] * 100_000, frame(9), frame(3)],
    ),
    ("a claim of 10 MB", [header(TEXT, 10 * MiB)]),
    ("a claim of 4 EB", [header(TEXT, 2**62)]),
    ("a claim of 16 EB", [header(TEXT, 2**64 - 1)]),
    ("an end of one byte", [frame(CLOSE, b"x")]),
    ("an end of no number", [frame(CLOSE, b"\0\0")]),
    ("an end that is no text", [frame(CLOSE, b"\x03\xe8\xff\xfe")]),
    ("noise", [bytes(range(256)) * 64]),
    ("an HTTP request", [b"GET / HTTP/1.1\r\n\r\n"]),
]


@pytest.mark.parametrize("pieces", [x[1] for x in FRAMES], ids=[x[0] for x in FRAMES])
def test_frames_that_are_none(address: str, pieces: list[bytes]) -> None:
    with Raw(address).open() as client:
        before = resident()
        client.send(*pieces)
        answers = [
            unpacked(data)[0]["type"] for opcode, data in client.frames() if opcode == BINARY
        ]  # then it hangs up
        assert answers in ([], ["error"])
        assert resident() - before < 64 * MiB


DEEP = "[" * 30_000
MESSAGES: list[tuple[str, Any, str]] = [
    ("deep lists", DEEP, "a message has one of the types"),
    ("deep lists that end", DEEP + "]" * 30_000, "a message has one of the types"),
    ("deep objects", '{"a":' * 10_000, "a message has one of the types"),
    ("a deep view", '{"type": "hello", "view": ' + "[" * 900 + "]" * 900 + "}", "view must be a name"),
    ("a deep type", '{"type": ' + "[" * 900 + "]" * 900 + "}", "a message has one of the types"),
    ("a deep action", '{"type": "step", "action": ' + "[" * 900 + "]" * 900 + "}", "an action is a list of numbers"),
    ("a deep record", '{"type": "reset", "episode": 0, "record": ' + "[" * 900 + "]" * 900 + "}", "record must be a"),
    ("view NaN", '{"type": "hello", "view": NaN}', "view must be a name, got nan"),
    ("view inf", '{"type": "hello", "view": -Infinity}', "view must be a name, got -inf"),
    ("view a number", {"type": "hello", "view": 3}, "view must be a name, got 3"),
    ("view a list", {"type": "hello", "view": [1]}, "view must be a name, got [1]"),
    ("view of 60 kB", {"type": "hello", "view": "x" * 60_000}, "view must be a name, got 'xx"),
    ("nothing", "", "a message has one of the types"),
    ("no JSON", "{no json", "a message has one of the types"),
    ("null", "null", "a message has one of the types"),
    ("a number", "3", "a message has one of the types"),
    ("a number of 60,000 digits", "9" * 60_000, "a message has one of the types"),
    ("a text", '"step"', "a message has one of the types"),
    ("NUL", "\0", "a message has one of the types"),
    ("no type", {}, "a message has one of the types hello, strip, reset, step"),
    ("an unknown type", {"type": "exec"}, "a message has one of the types"),
    ("a type of Python", {"type": "__class__"}, "a message has one of the types"),
    ("type null", {"type": None}, "a message has one of the types"),
    ("type a list", {"type": ["step"]}, "a message has one of the types"),
    ("type a number", {"type": 10**400}, "a message has one of the types"),
    ("episode missing", {"type": "reset", "record": 0}, "episode must be a whole number, got None"),
    ("episode text", {"type": "reset", "record": 0, "episode": "0"}, "episode must be a whole number, got '0'"),
    ("episode true", {"type": "strip", "episode": True}, "episode must be a whole number, got True"),
    ("episode 1.0", {"type": "strip", "episode": 1.0}, "episode must be a whole number, got 1.0"),
    ("episode NaN", '{"type": "strip", "episode": NaN}', "episode must be a whole number, got nan"),
    ("episode of 400 digits", {"type": "strip", "episode": 10**400}, "episode must be from 0 to 1"),
    ("episode below 0", {"type": "strip", "episode": -1}, "episode must be from 0 to 1"),
    ("episode an object", {"type": "strip", "episode": {}}, "episode must be a whole number, got {}"),
    ("episode of 60 kB", {"type": "strip", "episode": "9" * 60_000}, "episode must be a whole number, got '999"),
    ("record null", RESET | {"record": None}, "record must be a whole number, got None"),
    ("record beyond", RESET | {"record": 33}, "record must be from 0 to 31"),
    ("record a list", RESET | {"record": [4]}, "record must be a whole number, got [4]"),
    ("who a list", {"type": "step", "who": ["me"]}, "who must be a name, got ['me']"),
    ("who a number", {"type": "step", "who": 1}, "who must be a name, got 1"),
    ("who nobody", {"type": "step", "who": "nobody"}, "nobody called 'nobody' can drive"),
    ("who of 60 kB", {"type": "step", "who": "actor" * 12_000}, "who must be a name, got 'actor"),
    ("who markup", {"type": "step", "who": "<script>alert(1)</script>"}, "nobody called '<script>"),
    ("half a letter", '{"type": "step", "who": "\\ud800"}', "nobody called"),
    ("action text", {"type": "step", "action": "left"}, "an action is a list of numbers, got 'left'"),
    ("action an object", {"type": "step", "action": {"0": 1}}, "an action is a list of numbers"),
    ("action of nothing", {"type": "step", "action": []}, "an action is 2 finite numbers, got []"),
    ("action of one", {"type": "step", "action": [1]}, "an action is 2 finite numbers, got [1.0]"),
    ("action of 10,000", {"type": "step", "action": [1] * 10_000}, "an action is 2 finite numbers, got [1.0, 1.0"),
    ("action NaN", '{"type": "step", "action": [NaN, 0]}', "an action is 2 finite numbers, got [nan"),
    ("action of 1e999", '{"type": "step", "action": [1e999, 0]}', "an action is 2 finite numbers, got [inf"),
    ("action of 1e300", {"type": "step", "action": [1e300, 0]}, "an action is 2 finite numbers, got [inf"),
    ("action of 400 digits", {"type": "step", "action": [10**400, 0]}, "too large"),
    ("action of lists", {"type": "step", "action": [[1, 0], [0, 1]]}, "an action is a list of numbers"),
]


@pytest.fixture(scope="module")
def tabs() -> Iterator[list[Raw]]:
    """The tab in which somebody tries one thing after another, once there is one."""
    kept: list[Raw] = []
    yield kept
    for tab in kept:
        tab.leave()


@pytest.fixture
def tab(address: str, tabs: list[Raw]) -> Raw:
    """It, or a new one where it was left for being silent between two tests."""
    if tabs:
        tabs[0].say(RESET)
    if not tabs or tabs[0].answer() is None:
        tabs[:] = [waits_for_room(address)]
        tabs[0].say(RESET)
        assert tabs[0].answer() is not None
    return tabs[0]


@pytest.mark.parametrize(("message", "text"), [x[1:] for x in MESSAGES], ids=[x[0] for x in MESSAGES])
def test_messages(address: str, tab: Raw, message: Any, text: str) -> None:
    tab.say(message)
    found = tab.answer()
    assert found is not None and found["type"] == "error" and text in found["text"] and found["view"] is None
    assert len(found["text"]) < 300 and "\n" not in found["text"]
    tab.say({"type": "step", "action": [0, 0], "view": "mine"})
    found = tab.answer()
    assert found is not None and found["type"] == "frame" and found["view"] == "mine"


def test_a_notebook_hears_the_same() -> None:
    session = make_session()
    session.reset()
    for _, message, text in MESSAGES:
        if not isinstance(message, str):
            assert text in answer(session, message)[0]["text"]
    json.dumps(answer(session, {"type": "hello", "view": float("nan")})[0], allow_nan=False)
