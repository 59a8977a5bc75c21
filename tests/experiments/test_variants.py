"""Studies of several ways of training: what would be run, and the page of what is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import worldmodel as wm
from experiments import curiosity, dyna, representation
from experiments.variants import Study, compared, jobs, parse, study, write
from tests.training.conftest import words
from worldmodel.errors import UserError
from worldmodel.training.cli import run
from worldmodel.training.settings import Settings, read, training_parser
from worldmodel.types import ActionSpec


def row(variant: str, seed: int, curve: list[list[float]], task: str = "a") -> dict[str, Any]:
    found = {"task": task, "variant": variant, "seed": seed, "curve": curve, "command": f"worldmodel fit {variant}"}
    return found | {"frames": curve[-1][0], "updates": 600, "minutes": curve[-1][1]}


ROWS = [
    row("share_0", 0, [[0, 0, 0.0], [1000, 10, 100.0]]),
    row("share_0", 1, [[0, 0, 0.0], [800, 10, 40.0]]),
    row("share_1", 0, [[0, 0, 0.0], [400, 5, 20.0], [400, 8, 60.0]]),
]


def settings(which: Study, words: list[str]) -> dict[str, Settings]:
    """Of every run that would be started, by its name."""
    given = parse(which, words)
    found = {}
    for job in jobs(which, given, Path("/nowhere")):
        fit = list(job.command[job.command.index("fit") + 1 :])
        found[job.name] = read(training_parser("fit", ""), fit)
    return found


def test_dyna_is_trained_with_every_share() -> None:
    found = settings(dyna.STUDY, ["--tasks", "cartpole_swingup", "--seeds", "3", "--minutes", "30"])
    agents = [each.agent(ActionSpec(1, False)) for each in found.values()]
    assert [agent.actor_critic.imagined_share for agent in agents] == [0, 0.05, 0.5, 1]  # type: ignore[union-attr]
    assert [agent.actor_critic.imagined_after for agent in agents] == [500, 500, 500, 0]  # type: ignore[union-attr]
    schedule = next(iter(found.values())).schedule()
    assert next(iter(found)) == "cartpole_swingup share_0 3" and (schedule.rounds, schedule.max_minutes) == (None, 30)


def test_losses_that_draw_nothing_have_no_decoder() -> None:
    found = settings(representation.STUDY, ["--seeds", "0", "--tasks", "cartpole_balance"])
    models = {name.split()[1]: each.agent(ActionSpec(1, False)).world_model for name, each in found.items()}
    assert models["decoder"].draws and models["decoder"].representation is None and len(models) == 5
    both = models.pop("both")
    assert both.draws and both.representation.name == "next_embedding" and both.representation.beside
    assert both.decode_fraction == models["decoder"].decode_fraction
    assert all(name == model.representation.name for name, model in models.items() if not model.draws)


def test_curiosity_differs_in_what_uncertainty_is_worth() -> None:
    found = settings(curiosity.STUDY, ["--seeds", "0"])
    plain, curious = (each.agent(ActionSpec(1, False)).actor_critic for each in found.values())
    assert plain is not None and curious is not None
    assert not plain.uncertainty_weight.counts and curious.uncertainty_weight.counts


def test_returns_are_compared_at_what_all_runs_came_to() -> None:
    first, second = compared(ROWS)
    assert (first["frames"], first["minutes"]) == (400, 8) == (second["frames"], second["minutes"])
    assert first["return_at_equal_frames"] == [40.0, 20.0] and first["return_at_equal_minutes"] == [80.0, 32.0]
    assert second["return_at_equal_minutes"] == [60.0] and second["updates_per_second"] == [1.25]


def test_the_page_is_that_of_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python -m experiments\.dyna runs it"):
        study(dyna.STUDY, ["--page", "--out", str(tmp_path)])
    (tmp_path / "a").mkdir()
    for found in ROWS:
        (tmp_path / "a" / f"{found['variant']}_{found['seed']}.json").write_text(json.dumps(found))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "dyna_notes.md").write_text("## Notes\n")
    write(dyna.STUDY, tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs" / "dyna.md").read_text()
    assert "| a | share_0 | **30** (40, 20) at 400 | **56** (80, 32) at 8.0 | 1,000, 800 | **1.0** (1.0, 1.0) |" in text
    assert text.endswith("## Notes\n") and "`worldmodel fit share_1`" in text
    assert len(json.loads((tmp_path / "docs" / "dyna.json").read_text())["runs"]) == 3


def test_when_the_first_reward_came_and_how_often_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["worldmodel"])
    run(words(tmp_path / "run", "--schedule.rounds", "1", "--schedule.updates", "1"))
    _, data = wm.load(tmp_path / "run")
    data.close()
    replay = wm.open_replay(tmp_path / "run", data)
    lengths, paid, before = [], [], 0
    for _, records in replay.episodes():
        lengths.append(len(records) - 1)
        paid.append(int((records["reward"] > 0).sum()))
        before += 0 if any(paid[:-1]) else lengths[-1]
    share = pytest.approx(sum(paid) / sum(lengths))
    assert curiosity.rewards(tmp_path / "run") == (before, share, sum(map(bool, paid)), len(paid))
