"""What keys do to an action, in node and without a page."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from worldmodel.insight.player.component import STATIC, script

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run it with")

DRIVE = """
const keys = new Keys(SIZE), sent = [];
for (const [does, ...given] of DONE) {
  if (does === "step") sent.push([...keys.action]), keys.sent();
  else keys[does](...given);
}
console.log(JSON.stringify({ sent, action: keys.action, group: keys.group, groups: keys.groups }));
"""


def driven(size: int, done: str) -> dict[str, Any]:
    """What was sent at each step, and how it stands at the end.

    ``+d`` presses a key, ``-d`` releases it, ``.`` is a step; other words name a method and what it is given.
    """
    words = [word.split(":") for word in done.split()]
    calls = [
        {"+": ["press", name[1:]], "-": ["release", name[1:]], ".": ["step"]}.get(name[0], [name, *map(float, given)])
        for name, *given in words
    ]
    text = (STATIC / "keys.js").read_text() + DRIVE.replace("SIZE", str(size)).replace("DONE", json.dumps(calls))
    assert NODE is not None
    return json.loads(subprocess.run([NODE, "-e", text], capture_output=True, check=True, timeout=60).stdout)


TAPS: list[tuple[str, str, list[list[float]]]] = [
    ("a tap between two steps", ". +d -d . .", [[0, 0], [1, 0], [0, 0]]),
    ("a key that is held", "+d . . -d .", [[1, 0], [1, 0], [0, 0]]),
    ("two taps at once", "+d +w -d -w . .", [[1, 1], [0, 0]]),
    ("a tap back", "+d -d +a -a . .", [[-1, 0], [0, 0]]),
    ("a tap on a held key", "+a . +d -d . .", [[-1, 0], [1, 0], [-1, 0]]),
    ("a tap and hold", "+d -d +d . .", [[1, 0], [1, 0]]),
    ("a tap over a slider", "set:0:0.5 +d -d . .", [[1, 0], [0, 0]]),
    ("a slider over a tap", "+d -d set:0:0.5 . .", [[0.5, 0], [0.5, 0]]),
    ("the focus goes", "+d . +w drop . .", [[1, 0], [0, 1], [0, 0]]),
    ("all to zero", "set:1:0.5 +d zero . -d .", [[0, 0], [0, 0]]),
    ("arrows", "+ArrowLeft +ArrowUp . -ArrowLeft .", [[-1, 1], [0, 1]]),
    ("keys that move nothing", "-d -x .", [[0, 0]]),
]


@pytest.mark.parametrize(("done", "sent"), [x[1:] for x in TAPS], ids=[x[0] for x in TAPS])
def test_what_is_pressed_counts_for_a_step(done: str, sent: list[list[float]]) -> None:
    assert driven(2, done)["sent"] == sent


def test_keys_move_the_group_that_is_chosen() -> None:
    found = driven(38, "choose:6 +d . -d set:0:0.25 . choose:99")
    assert found["groups"] == 7 and found["group"] == 6
    assert [{i: x for i, x in enumerate(sent) if x} for sent in found["sent"]] == [{36: 1}, {0: 0.25}]
    found = driven(38, "+d . choose:1 . +l choose:-3 . .")
    assert found["group"] == 0  # a key that is held does not go on in another group
    assert [{i: x for i, x in enumerate(sent) if x} for sent in found["sent"]] == [{0: 1}, {}, {8: 1}, {}]


def test_it_is_one_module_that_node_can_read() -> None:
    assert NODE is not None
    told = subprocess.run(
        [NODE, "--input-type=module", "--check"], input=script().encode(), capture_output=True, timeout=60
    )
    assert told.returncode == 0, told.stderr.decode()
