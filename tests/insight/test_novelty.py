from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldmodel.insight.calibration import auroc
from worldmodel.insight.novelty import JUDGES, novelty, tail
from worldmodel.insight.report import shift_auroc, step_measures
from worldmodel.insight.shifts import Brightness


def test_a_tail_is_the_share_that_is_no_less() -> None:
    data = np.array([3.0, 1.0, 2.0])
    assert tail(torch.tensor([0.0, 1.0, 1.5, 3.0, 9.0]), data).tolist() == [1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("who", JUDGES)
def test_what_one_of_them_knows_is_known(who: str) -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.exponential(size=2000) for name in JUDGES}
    strange = {name: rng.exponential(size=2000) + 6 * (name == who) for name in JUDGES}
    assert auroc(novelty(strange, data), novelty(data, data)) > 0.95
    assert novelty(data, data).min() >= 0
    assert abs(novelty(data, data).mean() - 6) < 0.1  # chi-squared with two degrees of freedom for each
    without = {name: x for name, x in data.items() if name != who}  # as without a decoder
    assert abs(novelty(without, data).mean() - 4) < 0.1


def test_it_stands_beside_the_measures_that_it_is_made_of() -> None:
    model, data = tiny.world_model(), tiny.batch(8, 5)
    assert set(JUDGES) <= step_measures(model, data).keys()
    found = shift_auroc(model, data, {"none": Brightness(0), "dark": Brightness(0.5)})
    assert found["none"]["novelty"] == 0.5 != found["dark"]["novelty"]
