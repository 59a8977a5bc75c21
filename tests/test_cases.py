"""The command that runs the tables of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cases

ENDINGS = """
import time, pytest
def test_passes(): pass
def test_is_skipped(): pytest.skip("not here")
def test_is_wrong(): assert 1 == 2
def test_does_not_raise():
    with pytest.raises(ValueError): pass
def test_raises(): raise KeyError("a bug")
def test_hangs(): time.sleep(60)
@pytest.fixture
def broken(): raise OSError("no setup")
def test_has_no_setup(broken): pass
"""


def test_each_ending_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test_endings.py"
    path.write_text(ENDINGS)
    given = [str(path), f"--rootdir={tmp_path}", f"--confcutdir={tmp_path}"]
    assert cases.run(given, timeout=1) == cases.Count(cases=7, passed=1, skipped=1, tracebacks=2, wrong=2, hangs=1)
    assert "a bug" in capsys.readouterr().err


def test_the_tables_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    files = [x for words in cases.TABLES.values() for x in words if x.endswith(".py")]
    assert all((cases.ROOT / name).is_file() for name in files) and len(files) == len(set(files)) > 10
    with pytest.raises(SystemExit):
        cases.main(["nothing"])
    assert "there is no table 'nothing'" in capsys.readouterr().err
