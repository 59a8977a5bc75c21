from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.insight.browser import needs_chromium, opened
from tests.training.conftest import files, numbered
from worldmodel import __version__ as version
from worldmodel.commands import report
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners.cem import CEM
from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder

SHORT = ["--episodes", "4", "--horizon", "6", "--context", "2"]


def films(page: str) -> list[np.ndarray]:
    """Frames (T, H, W, 3) of all the films in a page."""
    found = []
    for data in re.findall(r"data:video/mp4;base64,([\w+/=]+)", page):
        with av.open(io.BytesIO(base64.b64decode(data))) as container:
            found.append(np.stack([x.to_ndarray(format="rgb24").astype(float) for x in container.decode(video=0)]))
    assert found
    return found


def undated(page: str) -> str:
    """A page without its films, and without when it was made."""
    return re.sub(r"data:video/mp4;base64,[\w+/=]+|<td>\d{4}-\d\d-\d\d [^<]*", "", page)


def test_the_command_writes_a_page_and_a_table(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    run(["report", "--run", str(finished), *SHORT])
    after = files(finished)
    page, numbers = after.pop("report.html").decode(), after.pop("report.json").decode()
    (finished / "report.html").unlink()
    assert after == before
    said = capsys.readouterr().out
    assert said.startswith(f"reporting on {finished}/checkpoints/best.ckpt of update ")
    assert said.endswith(f"\nwrote {finished}/report.html and {finished}/report.json\n")

    assert "http://" not in page and "https://" not in page
    sources = Counter(re.findall(r'(?:src|poster)="data:(.+?);base64,', page))
    assert sources == {"image/png": 8 + 2, "video/mp4": 2} and len(re.findall(r"src=|poster=", page)) == 12
    told = ("PointReach", "SharedTrunk, K = 3", "<td>best.ckpt</td>", "half by actor", "16, of which 8 to fit")
    config = html.escape((finished / "config.yaml").read_text())
    cost = ("minutes, evaluations apart", "the median of the run", "world model ", "actor and critic ", " MB</td>")
    updates = load_checkpoint(finished / "checkpoints/best.ckpt")["updates"]
    quoted = (
        f"best.ckpt, after {updates} updates",
        "It acts ",
        "rank correlation",
        f"worldmodel {version}",
        "2 and 2 ",
        "Does it promise the actor more than comes?",
        "Returns of 6 steps, dreamt and real, from the same 10 states",
    )
    for words in (*told, *cost, *quoted, config, f"worldmodel validate --run {finished} --policy cem"):
        assert words in page, words

    rows = json.loads(numbers)
    given = {(row["task"], row["transition"], row["seed"]) for row in rows}
    assert given == {("worldmodel.experience.toy:PointReach", "SharedTrunk", 0)}
    assert {row["metric"] for row in rows} >= {"error", "bias", "rank_correlation", "ece", "coverage", "auroc"}
    gaps = {row["metric"]: row["value"] for row in rows if row["measure"] == "return" and row["case"] == "actor"}
    assert gaps["exploitation_gap"] == pytest.approx(gaps["imagined"] - gaps["real"])
    assert max(row["horizon"] or 0 for row in rows) == 6

    best = str(finished / "checkpoints" / "best.ckpt")
    run(["report", "--run", str(finished), *SHORT, "--checkpoint", best, "--out", str(tmp_path / "new" / "again.html")])
    # a pixel that lies between two values may fall on the other side: films are compared by their frames
    again = (tmp_path / "new" / "again.html").read_text()
    assert undated(again) == undated(page)
    for one, other in zip(films(again), films(page), strict=True):
        assert one.shape == other.shape and np.abs(one - other).mean() < 0.5
    assert (tmp_path / "new" / "again.json").read_text() == numbers
    assert not (finished / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--run", "{run}/nothing"], "holds no run"),
        (["--run", "{run}", "--checkpoint", "no/such.ckpt"], "there is no checkpoint no/such.ckpt"),
        (
            ["--run", "{run}", "--episodes", "4", "--horizon", "29"],
            "horizon 29 is longer than the data: with 5 records",
        ),
        (["--run", "{run}", "--episodes", "3"], "episodes is 3: it must be 4 or more"),
        (["--run", "{run}", "--horizon", "0"], "horizon is 0: it must be 1 or more"),
        (["--run", "{run}", "--horizon", "many"], "horizon: expected int, got many"),
        (["--run", "{run}", "--horizn", "3"], "no option horizn: did you mean horizon?"),
        ([], "required: run"),
    ],
)
def test_mistakes(finished: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str) -> None:
    before = files(finished)
    with pytest.raises(SystemExit) as end:
        run(["report", *(word.format(run=finished) for word in given)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.startswith("worldmodel: ") and error.count("\n") == 1
    assert files(finished) == before


def test_a_run_of_which_little_is_left(finished: Path) -> None:
    shutil.rmtree(finished / "videos")
    (finished / "metrics.csv").unlink()
    run(["report", "--run", str(finished), *SHORT])
    page = (finished / "report.html").read_text()
    assert f"There is no film of these weights: worldmodel validate --run {finished} makes one." in page
    assert "there is no metrics.csv" in page and page.count("<video") == 1


def test_a_damaged_film(finished: Path) -> None:
    for film in (finished / "videos").glob("episode_*.mp4"):
        film.write_bytes(b"cut")
    run(["report", "--run", str(finished), *SHORT])
    assert "cannot read the film" in (finished / "report.html").read_text()


def test_all_is_of_one_checkpoint(finished: Path) -> None:
    folder = RunFolder(finished)
    best = load_checkpoint(folder.best)["updates"]
    row = folder.read_evaluations()[-1] | {"seed": 7, "return_std": 5.6}
    folder.add_validation(row | {"updates": best, "policy": "cem+value", "return_mean": 123.4})
    folder.add_validation(row | {"updates": best + 1, "policy": "mppi", "return_mean": 99.9})
    run(["report", "--run", str(finished), *SHORT])
    page = (finished / "report.html").read_text()
    assert "<td>cem+value</td>" in page and "<td>123.4 \u00b1 5.6</td>" in page and "<td>7</td>" in page
    assert "<td>mppi<" not in page and "<td>99.9 " not in page and "--policy cem" not in page
    assert f"evaluation of these weights, after {best} updates" in page


def test_numbers_that_differ_do_not_take_the_place_of_others(finished: Path, capsys: Any) -> None:
    run(["report", "--run", str(finished), *SHORT])
    page, numbers = ((finished / name).read_text() for name in ("report.html", "report.json"))
    run(["report", "--run", str(finished), *SHORT])
    assert not (finished / "report-1.json").exists()  # they are the same
    run(["report", "--run", str(finished), *SHORT, "--seed", "1"])
    assert f"kept what was there before as {finished}/report-1.json and" in capsys.readouterr().out
    assert (finished / "report-1.json").read_text() == numbers != (finished / "report.json").read_text()
    assert undated((finished / "report-1.html").read_text()) == undated(page)


def test_the_film_is_of_the_one_who_was_trained(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.film(20) is None
    folder.videos.mkdir()
    for name in ("episode_0000020_cem.mp4", "open_loop_0000030.mp4"):
        (folder.videos / name).touch()
    assert folder.film(20) == folder.videos / "episode_0000020_cem.mp4" and folder.film(30) is None
    (folder.videos / "episode_0000020.mp4").touch()
    assert folder.film(20) == folder.videos / "episode_0000020.mp4"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words, wanted in (
        (["--help"], "worldmodel report --run"),
        (["--help"], "worldmodel imagine --run"),
        (["report", "--help"], "records that are dreamt"),
        (["imagine", "--help"], "the film, .mp4 or .gif"),
        (["export", "--help"], "of the replay, the newest"),
    ):
        with pytest.raises(SystemExit) as end:
            run(words)
        assert end.value.code == 0 and wanted in capsys.readouterr().out


def test_a_run_without_an_actor_is_driven_by_its_planner(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(*given: Any, **more: Any) -> tuple[Agent, Experience]:
        agent, data = load_run(*given, **more)
        agent.actor_critic = None
        search = CEM(horizon=2, candidates=4, elites=2, iterations=1)
        agent.collect_with = partial(PlannerController, planner=search)
        return agent, data

    monkeypatch.setattr(report, "load_run", bare)
    (finished / "evaluations.jsonl").unlink()
    run(["report", "--run", str(finished), *SHORT])
    page = (finished / "report.html").read_text()
    assert "half by cem and half at random" in page
    assert "has not been evaluated yet" in page


def test_windows_do_not_overlap_and_keep_to_their_episode(tmp_path: Path) -> None:
    replay = numbered(tmp_path, (7, 2, 6))
    found = report.windows(replay, 1, 2)
    assert found.reward.tolist() == [[0, 1, 2], [3, 4, 5], [200, 201, 202], [203, 204, 205]]
    assert found.episode.tolist() == [[0] * 3, [0] * 3, [2] * 3, [2] * 3]
    assert found.is_first[:, 0].tolist() == [True, False, True, False] and not found.is_first[:, 1:].any()
    assert found.image.shape == (4, 3, 3, 4, 4) and found.image.dtype == torch.uint8
    with pytest.raises(
        UserError, match=r"horizon 7 is longer than the data: .* takes 8, and the longest episode has 7"
    ):
        report.windows(replay, 1, 7)


@needs_chromium
def test_a_browser_opens_it_from_the_disk_without_a_word(finished: Path) -> None:
    run(["report", "--run", str(finished), *SHORT])
    with opened(finished / "report.html") as page:
        page.wait_for_function("[...document.querySelectorAll('video')].every(film => film.duration > 0)")
        wide = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(wide) == 8 and all(wide)
        assert page.locator("h2").all_inner_texts()[:5] == ["Summary", "Run", "Cost", "Learning", "An episode"]
