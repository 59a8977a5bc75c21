from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from tests.training.conftest import CONFIGS, files, words
from worldmodel.commands import imagine
from worldmodel.control.planner_controller import PlannerController
from worldmodel.errors import UserError
from worldmodel.experience.toy import PointReach
from worldmodel.insight.video import read_mp4
from worldmodel.training.acting import read_policy
from worldmodel.training.cli import run
from worldmodel.training.randomness import seed_for
from worldmodel.types import ActionSpec, Trajectory

SHORT = ["--horizon", "6", "--context", "3"]
CEM = str(CONFIGS / "policy/cem.yaml")
PLANNER = "worldmodel.control.planner_controller.PlannerController"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Trajectory]:
    """What the command would draw, in the order of its calls."""
    kept: list[Trajectory] = []
    monkeypatch.setitem(imagine._WRITERS, ".png", lambda path, each: kept.append(each))
    return kept


def test_the_command_films(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(finished)
    for name in ("new/dream.mp4", "dream.gif", "dream.png"):
        run(["imagine", "--run", str(finished), "--out", str(tmp_path / name), *SHORT])
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("nothing is known of how wrong its dreams are: worldmodel report")
        assert said[1:] == [f"wrote {tmp_path / name}"]
    assert files(finished) == before
    film = read_mp4(tmp_path / "new" / "dream.mp4")
    assert len(film) == 9
    with Image.open(tmp_path / "dream.gif") as gif:
        assert gif.n_frames == 9 and gif.info["duration"] == 120
    with Image.open(tmp_path / "dream.png") as strip:
        assert strip.width > 9 * 64


def test_the_truth_is_what_the_actor_really_does(finished: Path, found: list[Trajectory]) -> None:
    for more in ([], ["--seed", "1"], []):
        run(["imagine", "--run", str(finished), "--out", "x.png", *SHORT, *more])
    one, other, again = found
    assert one.valid.all() and one.truth.shape == (2, 9, 3, 16, 16) and len(one.members) == 3
    assert np.array_equal(one.truth, again.truth) and np.array_equal(one.image, again.image)
    assert not np.array_equal(one.truth[:, 0], other.truth[:, 0])
    assert not np.array_equal(one.truth[0, 0], one.truth[1, 0])


def played(actions: np.ndarray, first: np.ndarray) -> list[float]:
    """Rewards of a toy episode that begins with the picture ``first``."""
    env, rewards = PointReach(), []
    for seed in begins():
        image, _ = env.reset(seed=seed)
        if np.array_equal(image.transpose(2, 0, 1), first):
            rewards = [env.step(action)[1] for action in actions]
            break
    return rewards


def begins() -> list[int]:
    """Seeds of the first episodes of reported returns, of two environments."""
    seed = seed_for(0, 0, "report")
    return [int(np.random.SeedSequence([seed, index, 0]).generate_state(1)[0]) for index in range(2)]


def test_actions_of_a_file_are_played_in_dream_and_reality(
    finished: Path, tmp_path: Path, found: list[Trajectory]
) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (7, 2)).astype(np.float32)
    np.save(tmp_path / "own.npy", actions)
    np.savetxt(tmp_path / "own.csv", actions, delimiter=",")
    for name, more in (("own.npy", []), ("own.csv", []), ("own.npy", ["--horizon", "4"])):
        given = ["--out", "x.png", "--context", "3", "--actions", str(tmp_path / name), *more]
        run(["imagine", "--run", str(finished), *given])
    one, same, short = found
    assert np.array_equal(one.action[0, 2:], actions) and one.valid.all()
    assert np.allclose(same.action, one.action) and np.allclose(same.reward, one.reward, atol=1e-5)
    assert np.array_equal(short.truth, one.truth[:, :7])
    for n in range(2):  # the environment itself, without any of ours around it, says the same
        rewards = played(one.action[n].numpy(), one.truth[n, 0].numpy())
        np.testing.assert_allclose(rewards, one.real_reward[n], atol=1e-5)


@pytest.mark.parametrize("policy", ["actor", CEM, str(CONFIGS / "policy/random.yaml")])
def test_a_policy_acts_in_the_dream_and_reality_follows(finished: Path, found: list[Trajectory], policy: str) -> None:
    more = ["--policy", policy, "--members", "false", "--sequences", "1"]
    run(["imagine", "--run", str(finished), "--out", "x.png", *SHORT, *more])
    (one,) = found
    assert one.valid.all() and one.truth.shape[0] == 1 and one.members is None
    np.testing.assert_allclose(played(one.action[0].numpy(), one.truth[0, 0].numpy()), one.real_reward[0], atol=1e-5)


def test_discrete_actions(tmp_path: Path, found: list[Trajectory]) -> None:
    task = ["--data.task", "worldmodel.experience.toy:DiscretePointReach", "--schedule.rounds", "1"]
    run(words(tmp_path / "run", *task))
    np.savetxt(tmp_path / "own.csv", [1, 1, 4, 0])
    for more in (["--policy", "actor", "--horizon", "4"], ["--actions", str(tmp_path / "own.csv")]):
        run(["imagine", "--run", str(tmp_path / "run"), "--out", "x.png", *more])
    for each in found:
        assert (each.action.amax(-1) == 1).all() and (each.action.sum(-1) == 1).all()
    assert found[1].action[0, 4:].argmax(-1).tolist() == [1, 1, 4, 0]
    assert found[1].real_reward.isfinite().all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--run", "{run}/nothing"], "holds no run"),
        (["--checkpoint", "no/such.ckpt"], "there is no checkpoint no/such.ckpt"),
        (["--out", "dream.avi"], "cannot write dream.avi: its name has to end in .mp4, .gif, .png"),
        (["--horizon", "40"], "horizon 40 is longer than an episode: with 5 records seen before it takes 45, and an"),
        (["--horizon", "40", "--policy", "actor"], "horizon 40 is longer than an episode"),
        (["--context", "34", "--horizon", "3"], "and an episode here has 33"),
        (["--horizon", "0"], "horizon is 0: it must be 1 or more"),
        (["--seed", "-1"], "seed is -1: it must be 0 or more"),
        (["--policy", "no/such.yaml"], "there is no policy file no/such.yaml: configs/policy holds"),
        (["--policy", str(CONFIGS / "policy/cautious.yaml")], "does not say who acts: it has no model.evaluate_with"),
        (["--policy", "{here}/bad.yaml"], "bad.yaml is no YAML"),
        (["--policy", "{here}/unknown.yaml"], "has no PlanerController: did you mean PlannerController"),
        (["--policy", CEM, "--actions", "x.npy"], "leave out --policy or --actions"),
        (["--actions", "no/such.npy"], "cannot read the actions no/such.npy"),
        (["--actions", "mine.txt"], "its name has to end in .npy or .csv"),
        (["--actions", "{here}/wide.npy"], "wide.npy are (4, 3): wanted are (H, 2), a row for each step"),
        (["--actions", "{here}/flat.npy"], "flat.npy are (4,): wanted are (H, 2)"),
        (["--actions", "{here}/large.npy"], "large.npy must be in [-1, 1]"),
        (["--actions", "{here}/good.npy", "--horizon", "5"], "longer than the actions: {here}/good.npy has 4"),
        (["--actions", "{here}/objects.npy"], "cannot read the actions {here}/objects.npy"),
        (["--actions", "{here}/words.csv"], "cannot read the actions {here}/words.csv"),
        (["--actions", "{here}/empty.npy"], "cannot read the actions {here}/empty.npy"),
        (["--out", "{here}/flat.npy/dream.png", "--horizon", "2"], "cannot write {here}/flat.npy/dream.png"),
        (["--membrs", "true"], "no option membrs: did you mean members?"),
    ],
)
def test_mistakes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    arrays: dict[str, Any] = {"wide": np.zeros((4, 3)), "flat": np.zeros(4), "large": np.full((4, 2), 2.0)}
    arrays |= {"good": np.zeros((4, 2)), "objects": np.array([{}], object)}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "words.csv").write_text("left,right\n")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "bad.yaml").write_text("model: [")
    (tmp_path / "unknown.yaml").write_text(f"model: {{evaluate_with: {PLANNER.replace('Plann', 'Plan')}}}")
    before = files(finished)
    flags = {"--run": str(finished), "--out": str(tmp_path / "dream.png")}
    flags |= dict(zip(given[::2], (x.format(run=finished, here=tmp_path) for x in given[1::2]), strict=True))
    with pytest.raises(SystemExit) as end:
        run(["imagine", *(word for pair in flags.items() for word in pair)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message.format(here=tmp_path) in error, error
    assert error.startswith("worldmodel: ") and error.count("\n") == 1
    assert files(finished) == before and not (tmp_path / "dream.png").exists()


def test_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["imagine"])
    assert "required: " in capsys.readouterr().err


def test_policy_files_say_who_acts() -> None:
    planner = read_policy(CEM)(tiny.world_model(), None, ActionSpec(tiny.ACTION, False))
    assert isinstance(planner, PlannerController) and planner.planner.horizon == 10


def test_discrete_actions_by_number_or_by_row(tmp_path: Path) -> None:
    spec, path = ActionSpec(3, True), tmp_path / "a.npy"
    wanted = np.eye(3)[[2, 0, 1]]
    for rows in (np.array([2, 0, 1]), np.array([[2], [0], [1]]), wanted, 0.5 * wanted):
        np.save(path, rows)
        assert np.array_equal(imagine.read_actions(path, spec), wanted)
    assert np.array_equal(imagine.read_actions(path, spec, horizon=2), wanted[:2])
    for rows in (np.array([0, 3]), np.array([0.5])):
        np.save(path, rows)
        with pytest.raises(UserError, match="must be whole numbers from 0 to 2"):
            imagine.read_actions(path, spec)
    np.save(path, np.array([0.5, np.nan]))
    with pytest.raises(UserError, match=r"must be in \[-1, 1\]"):
        imagine.read_actions(path, ActionSpec(1, False))


def test_a_terminal_state_ends_the_truth_and_a_time_limit_is_complained_of() -> None:
    batch = tiny.batch(2, 8)
    batch.is_first[0, 5] = True
    with pytest.raises(UserError, match=r"horizon 5 is longer than an episode: .* takes 8, and an episode here has 5"):
        imagine._whole(batch, 3)
    batch.is_terminal[0, 4] = True
    assert imagine._whole(batch, 3) is batch
    with pytest.raises(UserError, match="an episode here has 5"):
        imagine._whole(batch, 6)  # it has not come to its dream
    assert torch.equal(batch.is_first[1], tiny.batch(2, 8).is_first[1])
