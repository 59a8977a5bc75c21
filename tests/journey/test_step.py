"""The journey itself takes an hour's quarter and a network; that it sees what is wrong is tested here."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.journey.__main__ import steps
from tests.journey.step import Step, walk

_SHELL = """#!/bin/sh
trap 'echo stopped; exit 130' INT
echo "one $1"; echo two >&2; : > empty; echo x > full
[ "$1" = traceback ] && echo "Traceback (most recent call last)"
[ "$1" = wait ] && for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done
exit 3
"""


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (Step("", "a", ("one a", "two"), ("full",), code=3), ""),
        (Step("", "a", ("two", "one"), code=3), "does not print 'one' after what came before it"),
        (Step("", "a", ("three",), code=3), "does not print 'three'"),
        (Step("", "a", (), ("full", "empty", "gone"), code=3), "leaves no empty, gone"),
        (Step("", "a"), "exit code 3, not 0: two"),
        (Step("", "traceback", code=3), "a traceback"),
        (Step("", "wait", ("stopped",), code=130, interrupt="two"), ""),
        (Step("", "wait", code=130, interrupt="two", meanwhile=lambda line: f"saw {line.strip()}"), "saw two"),
        (Step("", "wait", code=130, limit=1), "exit code -9, not 130: two"),
    ],
)
def test_what_is_wrong(step: Step, wrong: str, tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text(_SHELL)
    shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
    done = walk(step, shell, tmp_path)
    assert done.wrong == wrong and done.first is not None and done.updated is None and "one" in done.text


def test_it_goes_everywhere() -> None:
    walked = [step.words.split()[0] for step in steps(1.0)]
    assert {"fit", "validate", "report", "imagine", "export", "play", "tasks", "--version"} <= set(walked)
    assert len(walked) == 16
