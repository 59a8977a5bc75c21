"""The suite's runner, its page, and the command on the toy, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.runner import Job, run_jobs
from experiments.suite.__main__ import main, suite
from experiments.suite.page import interquartile_mean, nearest, published, write
from worldmodel.errors import UserError

ROOT = Path(__file__).parents[2]
TINY = "tests/training/tiny.yaml"


@pytest.fixture(autouse=True)
def _own_cores(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Cores are held by files in the folder for temporary ones: what else runs here may hold all."""
    tmp_path_factory.getbasetemp()  # of all tests, and not in the folder that is made here
    with tempfile.TemporaryDirectory(prefix="cores") as folder:  # Ray's sockets lie there too: no longer than this
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield


def job(folder: Path, name: str, code: str) -> Job:
    """A job that is a line of Python; it finds its result's path in ``out``."""
    out = folder / f"{name}.json"
    return Job(
        name, ("-c", f"import os, pathlib; out = pathlib.Path({str(out)!r}); {code}"), out, folder / f"{name}.log"
    )


def test_jobs_run_once_and_failures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = "out.open('a').write(str(sorted(os.sched_getaffinity(0))))"
    jobs = [job(tmp_path, "good", once), job(tmp_path, "bad", "os._exit(3)"), job(tmp_path, "empty", "pass")]
    # the one that dies takes its worker along the first time
    beside = "mark = out.with_suffix('.mark'); first = not mark.exists(); mark.touch()"
    dies = f"{beside}; first and os.kill(os.getppid(), 9); out.touch()"
    jobs.append(job(tmp_path, "dies", dies))
    assert sorted(run_jobs(jobs)) == ["bad", "empty"]
    printed = capsys.readouterr().out
    assert "4 runs: 0 are done, 4 are left" in printed
    assert "bad failed (exit code 3)" in printed and "empty failed (it left no result)" in printed
    assert len(json.loads((tmp_path / "good.json").read_text())) == 1  # pinned to one core
    assert (tmp_path / "dies.json").exists()
    before = (tmp_path / "good.json").read_text()
    run_jobs([jobs[0]])
    assert (tmp_path / "good.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tasks", "walker_wlk"], "no task walker_wlk: did you mean walker_walk?"),
        (["--configs", "configs/size/huge.yaml"], "there is no configuration configs/size/huge.yaml"),
        (["--tasks", "point_reach", "--address", "127.0.0.1:9"], "no Ray cluster can be reached at 127.0.0.1:9"),
        (["--tasks", "point_reach", "--address", "127.0.0.1:x"], "no Ray cluster can be reached at 127.0.0.1:x"),
    ],
)
def test_what_cannot_be_run_is_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line.replace("?", r"\?")) as raised:
        suite([*words, "--out", str(tmp_path)])
    assert "\n" not in str(raised.value)


def test_a_missing_ray_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["suite", "--tasks", "point_reach", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and "pip install 'worldmodel[suite]'" in error


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    mean, low, high = interquartile_mean([0, 0, 400, 500, 600, 700, 1000, 1000])
    assert mean == pytest.approx(550) and low < 550 < high
    assert interquartile_mean([3.0])[0] == 3


def test_published_scores_are_those_of_the_nearest_frames(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    lines = ["source,task,env_steps,score,n_seeds,note"]
    for frames, score in ((100_000, 1), (500_000, 5), (1_000_000, 10)):
        lines.append(f"DreamerV3-repo/dreamerv3,walker_walk,{frames},{score},10,")
    table.write_text("\n".join([*lines, "DreamerV3-repo/dreamerv3,cheetah_run,200000,7,10,"]))
    points = published(table, "walker_walk")
    assert [frames for _, frames, _ in points] == [100_000, 500_000, 1_000_000]
    assert nearest(points, 250_000) == [["DreamerV3", 500_000, 5.0]]
    assert published(None, "walker_walk") == []


def row(**given: Any) -> dict[str, Any]:
    found = {"task": "a", "preset": "laptop", "seed": 0, "cores": 1, "policy": "actor", "frames": 10, "updates": 5}
    found |= {"minutes": 1.5, "return_mean": 700.0, "return_std": 3.0, "episodes": 10, "command": "c", "commit": "d"}
    return found | {"curve": [[5, 0.5, 300.0], [10, 1.5, 700.0]]} | given


def test_the_page_has_a_line_for_each_task_and_every_seed(tmp_path: Path) -> None:
    for at, found in enumerate([row(), row(seed=1, return_mean=500.0), row(task="b", return_mean=100.0)]):
        (tmp_path / "laptop").mkdir(exist_ok=True)
        (tmp_path / "laptop" / f"{at}.json").write_text(json.dumps(found))
    (tmp_path / "random").mkdir()
    (tmp_path / "random" / "a.json").write_text('{"random_mean": 45.0}')
    write(tmp_path, tmp_path / "page", None)
    text = (tmp_path / "page" / "suite.md").read_text()
    assert "| a | laptop | 45 | **600** | 0: 700 ± 3, 1: 500 ± 3 |" in text and "| b | laptop |  | **100** |" in text
    assert "over 2 tasks: **350**" in text
    rows = json.loads((tmp_path / "page" / "suite.json").read_text())
    assert [x["random_mean"] for x in rows] == [45.0, 45.0, None]
    assert {path.name for path in (tmp_path / "page").glob("*.png")} == {"suite_frames.png", "suite_minutes.png"}


def page(out: Path) -> list[dict[str, Any]]:
    """Rows of a page, less what the clock and the repository say."""
    rows = json.loads((out / "suite.json").read_text())
    return [x | {"minutes": 0, "commit": "", "curve": [[f, 0, r] for f, _, r in x["curve"]]} for x in rows]


def test_killed_and_started_again_it_ends_with_the_same_page(tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        words = ["--tasks", "point_reach", "--seeds", "0", "1", "--configs", TINY, "--out", str(out)]
        return [sys.executable, "-m", "experiments.suite", *words]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    first = subprocess.Popen(command(cut), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(cut.glob("tiny/*/checkpoints/last.ckpt")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run(command(cut), cwd=ROOT, check=True, capture_output=True)
    assert page(cut) == page(whole) and len(page(cut)) == 2
