from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldmodel.insight.shifts import (
    SHIFTS,
    Background,
    Blur,
    Brightness,
    Camera,
    Colour,
    Occlusion,
    PixelNoise,
    Shift,
    shifted,
)


@pytest.fixture
def image() -> Tensor:
    return torch.randint(256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_a_shift_shows_and_repeats_itself(shift: Shift, image: Tensor) -> None:
    before = image.clone()
    after = shift(image)
    assert after.shape == image.shape and after.dtype == torch.uint8
    assert torch.equal(after, type(shift)()(image))
    assert torch.equal(image, before)
    scene = torch.full((6, 3, 64, 64), 60, dtype=torch.uint8)  # something coloured that moves over a plain floor
    for n in range(6):
        scene[n, 0, 24:40, 8 * n : 8 * n + 16] = 220
    assert ((shift(scene).int() - scene.int()).abs() > 20).float().mean() > 0.01


@pytest.mark.parametrize("kind", [type(s) for s in SHIFTS.values()])
def test_no_strength_changes_nothing(kind: type[Shift], image: Tensor) -> None:
    assert torch.equal(kind(strength=0.0)(image), image)


@pytest.mark.parametrize("kind", [type(s) for s in SHIFTS.values()])
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(kind: type[Shift], strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength of a shift must be in \[0, 1\]"):
        kind(strength=strength)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 8, 8)])
def test_only_images(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes images \(N, 3, H, W\) uint8"):
        Blur()(wrong)


def test_a_third_of_the_circle_moves_the_channels(image: Tensor) -> None:
    assert torch.equal(Colour(1 / 3)(image), image[:, [2, 0, 1]])
    assert torch.equal(Colour(1.0)(image), image)
    grey = image[:, :1].expand_as(image)
    assert torch.equal(Colour(0.2)(grey), grey)


def test_brightness(image: Tensor) -> None:
    assert torch.equal(Brightness(0.2)(image).int(), (image.int() + 51).clamp_max(255))


def test_noise_has_its_deviation_and_its_seed() -> None:
    grey = torch.full((20, 3, 16, 16), 128, dtype=torch.uint8)
    noise = PixelNoise(0.1)(grey).float() - 128
    assert abs(noise.mean()) < 1 and abs(noise.std() - 25.5) < 0.5
    assert not torch.equal(PixelNoise(0.1, seed=1)(grey), PixelNoise(0.1)(grey))


def test_occlusion_hides_the_middle(image: Tensor) -> None:
    hidden = Occlusion(0.5)(image)
    assert (hidden[..., 4:12, 4:12] == 128).all()
    hidden[..., 4:12, 4:12] = image[..., 4:12, 4:12]
    assert torch.equal(hidden, image)


def test_background_leaves_what_moves() -> None:
    image = torch.full((5, 3, 16, 16), 40, dtype=torch.uint8)
    for n in range(5):
        image[n, :, n, :4] = 200
    after = Background(strength=1.0, cell=0.25)(image)
    moves = image == 200
    assert (after[moves] == 200).all()
    row, column = torch.arange(16).unsqueeze(1) // 4, torch.arange(16) // 4
    checker = (((row + column) % 2) * 255).expand_as(image)
    assert torch.equal(after[~moves].long(), checker[~moves])
    half = Background(strength=0.5, cell=0.25)(image)
    assert set(half[~moves].tolist()) == {20, 148}  # 40 halfway to 0 and to 255, rounded


def test_the_camera_moves_right_and_down_and_nearer() -> None:
    image = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    image[..., 18:22, 18:22] = 255  # in the middle, so that the zoom leaves it there
    after = Camera(0.25)(image)[0, 0].float()
    mass = after.sum()
    rows, columns = after.sum(1) / mass, after.sum(0) / mass
    place = torch.arange(40) + 0.5
    assert abs((rows * place).sum() - 30) < 0.1 and abs((columns * place).sum() - 30) < 0.1
    assert abs(mass / image[0, 0].sum() - 1.25**2) < 0.05
    plain = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(Camera()(plain), plain)  # the border goes on


def test_blur_spreads_by_its_deviation() -> None:
    image = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    image[..., 16, :] = 255
    rows = Blur(2 / 33)(image)[0, 0, :, 5].float()
    rows = rows / rows.sum()
    distance = torch.arange(33) - 16
    assert abs((rows * distance**2).sum().sqrt() - 2) < 0.1
    assert Blur(1.0)(image).float().std() < 40  # a blur as wide as the image still works


def test_shifted_sequences_differ_in_their_images_alone() -> None:
    batch = tiny.batch(3, 4)._replace(features=torch.zeros(3, 4, 5))
    after = shifted(batch, Colour())
    assert torch.equal(after.image, batch.image[:, :, [2, 0, 1]])
    for ours, theirs in zip(after[1:6], batch[1:6], strict=True):
        assert torch.equal(ours, theirs)
    assert after.features is None  # they were of the other images


def test_shifted_sequences_share_one_background() -> None:
    batch = tiny.batch(2, 4)
    image = torch.full_like(batch.image, 100)
    image[0, 0, :, 3, 3] = 250
    after = shifted(batch._replace(image=image), Background())
    assert (after.image[0, 0, :, 3, 3] == 250).all() and (after.image[0, 1, :, 3, 3] != 100).all()
