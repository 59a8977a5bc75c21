from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from tests.insight.test_trust import ORIGIN, H, dreams
from worldmodel.insight.clues import dream_clues, with_expected
from worldmodel.insight.player.tracker import Tracker
from worldmodel.insight.rollouts import open_loop, squared_error
from worldmodel.insight.trust import Clues, fit_trust
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory


def test_a_dream_that_is_driven_is_judged_as_a_rollout_is() -> None:
    model, context = tiny.world_model(), 3
    for p in model.reward.parameters():  # or it says zero, whatever it sees
        p.data += 0.3 * torch.randn_like(p)
    trust = fit_trust(*dreams(np.random.default_rng(0), 400), ORIGIN)
    batch = tiny.batch(1, context + H + 1)
    path = open_loop(model, batch, context)
    trust = trust._replace(limit=0.99 * float(trust._ratio(_clues(model, path)).max()))  # reached on the way
    whole = with_expected(model, path, trust)
    assert whole.expected_error is not None and whole.trusted is not None
    tracker, count = Tracker(model, trust), 0
    for _ in range(2):  # begun again, nothing is left of before
        tracker.begin(path.state.map(lambda x: x[:, context - 1]), batch.image[0, context - 1].numpy())
        count = 0
        for t in range(H):
            found = tracker.step(path.state.map(lambda x, t=t: x[:, context + t]), path.action[:, context - 1 + t])
            assert found is not None
            wanted = whole.expected_error[0, t].tolist()
            assert [found.low, found.high, found.median] == pytest.approx(wanted, rel=1e-3)
            count += found.trusted
    assert count == whole.trusted[0] < H
    assert tracker.step(path.state.map(lambda x: x[:, -1]), path.action[:, -1]) is None  # the calibration ends


def _clues(model: WorldModel, path: Trajectory[LatentState]) -> Clues:
    end = 2 + H
    state, action = path.state.map(lambda x: x[:, 2 : end + 1]), path.action[:, 2:end]
    assert path.image is not None and path.truth is not None
    missed = squared_error(path.image[:, 2], path.truth[:, 2])
    return dream_clues(model, path._replace(state=state, action=action), missed)
