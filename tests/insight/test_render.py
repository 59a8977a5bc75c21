from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import ImageDraw
from torch import Tensor

from worldmodel.insight.canvas import DREAMT, Line, Scale, blank, plot, scale_of
from worldmodel.insight.render import render_branches, render_film, render_strip
from worldmodel.types import LatentState, Trajectory

TRUTH, DREAM, MEMBERS = (200, 0, 90), (0, 150, 90), ((60, 0, 90), (0, 60, 90))  # no greys, which words have


def plain(colour: tuple[int, int, int], *shape: int) -> Tensor:
    """(*shape, 3, 8, 8)"""
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(*shape, 3, 8, 8).clone()


NOWHERE = LatentState(*(torch.zeros(2, 5, 1) for _ in range(3)))


@pytest.fixture
def flat() -> Trajectory[LatentState]:
    """Two sequences of five records in plain colours, two of them seen, with two members; the truth ends early."""
    number = torch.arange(4.0).expand(2, 4)
    truth, valid = plain(TRUTH, 2, 5), torch.ones(2, 5, dtype=torch.bool)
    valid[1, 4], truth[1, 4] = False, 0
    return Trajectory(
        NOWHERE,
        number[..., None],
        number + 1,
        torch.ones(2, 4),
        number,
        image=plain(DREAM, 2, 5),
        members=torch.stack([plain(colour, 2, 5) for colour in MEMBERS]),
        truth=truth,
        real_reward=number,
        valid=valid,
        context=2,
    )


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(-1).sum())


def test_strip(flat: Trajectory[LatentState]) -> None:
    picture = np.asarray(render_strip(flat, cell=32))
    assert count(picture, TRUTH) == 9 * 32**2
    assert [count(picture, value) for value in (DREAM, *MEMBERS)] == [10 * 32**2] * 3
    line = (picture == DREAMT).all(-1).all(0)
    assert line.any()
    assert count(picture[:, : line.argmax()], DREAM) == 2 * 2 * 32**2  # the context stands left of the line


def test_a_long_strip_shows_some(flat: Trajectory[LatentState]) -> None:
    images = {name: getattr(flat, name).repeat_interleave(20, -4) for name in ("image", "members", "truth")}
    steps = {name: torch.zeros(2, 99) for name in ("reward", "uncertainty", "real_reward")}
    long = flat._replace(**images, **steps, valid=torch.ones(2, 100, dtype=torch.bool))
    picture = np.asarray(render_strip(long, cell=16))
    assert picture.shape[1] < 41 * 17 + 160
    assert count(picture, DREAM) == 33 * 2 * 16**2  # every third


def test_film(flat: Trajectory[LatentState]) -> None:
    film = render_film(flat, cell=16)
    assert film.shape[0] == 5 and film.shape[-1] == 3 and film.dtype == np.uint8
    assert [count(frame, TRUTH) for frame in film] == [2 * 16**2] * 4 + [16**2]
    assert all(count(frame, DREAM) == count(frame, MEMBERS[1]) == 2 * 16**2 for frame in film)
    borders = [count(frame, DREAMT) > 2 * 3 * (24**2 - 16**2) for frame in film]
    assert borders == [False, False, True, True, True]
    assert all((a != b).any() for a, b in pairwise(film))  # the cursor moves
    alone = render_film(flat._replace(members=None), cell=16)
    assert count(alone[0], MEMBERS[0]) == 0 and count(alone[0], DREAM) == 2 * 16**2


def test_the_difference_is_a_row_of_its_own(flat: Trajectory[LatentState]) -> None:
    wrong = tuple(abs(a - b) for a, b in zip(TRUTH, DREAM, strict=True))
    assert count(np.asarray(render_strip(flat, cell=32, difference=True)), wrong) == 9 * 32**2
    assert count(render_film(flat, cell=16, difference=True)[0], wrong) == 2 * 16**2
    assert count(np.asarray(render_strip(flat, cell=32)), wrong) == 0


def test_without_images_there_is_nothing_to_draw(flat: Trajectory[LatentState]) -> None:
    with pytest.raises(ValueError, match="take one of open_loop or branches"):
        render_strip(flat._replace(truth=None))


def test_branches_are_drawn() -> None:
    number = torch.ones(3, 4)
    found = Trajectory(NOWHERE, number[..., None], number, number, number, image=plain(TRUTH, 3, 5))
    picture = np.asarray(render_branches(found, cell=16, names=["left", "right", "stay"]))
    assert count(picture, TRUTH) == 15 * 16**2


def test_a_plot_keeps_to_its_scale_and_leaves_gaps() -> None:
    values = np.array([0, 0, np.nan, 4, 4.0])
    scale = scale_of(values, least=Scale(0, 1))
    assert scale == (0, 4) and scale_of(least=Scale(-1, 1)) == (-1, 1)
    canvas, x = blank(300, 60), np.array([150, 180, 210, 240, 270])
    plot(ImageDraw.Draw(canvas), (140, 0, 290, 50), x, [Line(values, "#ff0000")], scale, "x")
    rows, columns = np.nonzero((np.asarray(canvas) == (255, 0, 0)).all(-1))
    assert set(columns) <= {*range(149, 183), *range(239, 273)}
    assert rows[columns < 200].min() >= 45 and rows[columns > 200].max() <= 5
