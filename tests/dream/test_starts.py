from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import worldmodel as wm
from tests import tiny
from worldmodel.dream.starts import is_warm, posterior_starts
from worldmodel.experience.replay import Replay
from worldmodel.insight.rollouts import reconstruction_error
from worldmodel.model.world_model import WorldModel

ROOT = Path(__file__).parents[2]


def replay(folder: Path, episodes: int = 3, length: int = 20, terminal: slice = slice(-1, None)) -> Replay:
    held = Replay(folder, image_shape=(3, tiny.SIZE, tiny.SIZE), action_size=tiny.ACTION)
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        records = np.zeros(length, held.dtype)
        records["image"] = rng.integers(256, size=records["image"].shape)
        records["action"][1:] = rng.uniform(-1, 1, (length - 1, tiny.ACTION))
        records["is_first"][0], records["is_terminal"][terminal] = True, True
        held.add_episode(records)
    return held


def test_a_dream_begins_once_enough_was_seen_and_never_at_an_end() -> None:
    batch = tiny.batch(3, 6)
    first, terminal = torch.zeros(3, 6, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)
    first[1, 1] = first[2, 4] = terminal[1, 0] = terminal[2, 3] = True
    warm = is_warm(batch._replace(is_first=first, is_terminal=terminal), context=3)
    assert warm.int().tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 1, 1]]


def test_starts_are_states_of_the_filter(tmp_path: Path) -> None:
    model, held = tiny.world_model(deterministic=True), replay(tmp_path)
    state = torch.get_rng_state()
    with held.aside():
        following = held.sample(2, 4)
    starts = posterior_starts(model, held, 40, context=4)
    assert torch.equal(torch.get_rng_state(), state) and starts.state.deter.shape == (40, 16)
    known, shown = [], []
    for _, records in held.episodes():
        images, actions = (torch.from_numpy(records[name][None].copy()) for name in ("image", "action"))
        first = torch.from_numpy(records["is_first"][None].copy())
        with torch.no_grad():
            known.append(model.rssm.observe(model.embed(images), actions, first).state.map(lambda x: x[0, :-1]))
        shown.append(images[0, :-1])
    stoch = torch.cat([x.stoch for x in known])  # of the image alone, so that it tells the record
    which = [torch.isclose(stoch, one, atol=1e-5).all(1) for one in starts.state.stoch]
    assert all(found.any() for found in which) and starts.reconstruction is not None
    for found, feature, missed in zip(which, starts.state.feature, starts.reconstruction, strict=True):
        images = torch.cat(shown)[found]  # several may look alike to it
        drawn = feature.expand(1, len(images), -1)
        assert torch.isclose(reconstruction_error(model, drawn, images[None]), missed).any()
    again = posterior_starts(model, held, 40, context=4)
    assert torch.equal(again.state.feature, starts.state.feature) and torch.equal(
        held.sample(2, 4).image, following.image
    )


@pytest.mark.parametrize("context", [1, 4])
def test_where_nothing_can_begin(tmp_path: Path, context: int) -> None:
    model: WorldModel = tiny.world_model()
    with pytest.raises(wm.UserError, match="is empty"):
        posterior_starts(model, Replay(tmp_path / "none", image_shape=(3, 16, 16), action_size=2), 4, context=context)
    with pytest.raises(wm.UserError, match="no dream can begin"):
        posterior_starts(model, replay(tmp_path / "over", terminal=slice(None)), 4, context=context)
    with pytest.raises(ValueError, match="at least 1"):
        posterior_starts(model, replay(tmp_path / "some"), 0)


@pytest.fixture(scope="module")
def shipped() -> wm.DreamVectorEnv:
    return wm.DreamVectorEnv.from_run(ROOT / "notebooks/run", num_envs=5, observation="pixels", horizon=2, starts=64)


def test_dreams_of_a_run(shipped: wm.DreamVectorEnv) -> None:
    seen, _ = shipped.reset(seed=0)
    assert seen.shape == (5, 3, 32, 32) and seen.std() > 5 and len(shipped.dreams.starts.deter) == 64
    for _ in range(3):
        _, _, terminated, _, infos = shipped.step(np.zeros((5, 1), np.float32))
    assert infos["is_first"].all() and not terminated.any()
    *_, infos = shipped.step(np.zeros((5, 1), np.float32))
    assert (infos["imagined_reward"] > 0).all() and (infos["cont"] > 0.9).all() and (infos["uncertainty"] < 50).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation": "pixel"}, "a dream is observed as latent or pixels, not as 'pixel'"),
        ({"device": "nowhere"}, "cannot dream on nowhere"),
    ],
)
def test_bad_input(settings: dict[str, str], message: str) -> None:
    with pytest.raises(wm.UserError, match=message):
        wm.DreamVectorEnv.from_run(ROOT / "notebooks/run", **settings)


def test_no_run() -> None:
    with pytest.raises(wm.UserError, match="holds no run"):
        wm.DreamVectorEnv.from_run("nowhere")
