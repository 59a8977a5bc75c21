from __future__ import annotations

import pytest
import torch

from encoders.base import Pixels


def noise(n: int = 50, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    image[:, :, 0] = 77  # a background
    return image


def test_before_measuring_the_range_is_fixed() -> None:
    image = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    white = Pixels(4)(image)
    assert torch.allclose(white[0], torch.tensor(-2.0)) and torch.allclose(white[1], torch.tensor(2.0))


def test_measured_pixels_are_white_and_the_background_is_gone() -> None:
    pixels, image = Pixels(16), noise()
    pixels.fit_statistics(image)
    white = pixels(image)
    assert torch.allclose(white.mean(0), torch.zeros(3, 16, 16), atol=1e-5)
    assert torch.allclose(white[:, :, 1:].std(0, unbiased=False), torch.ones(3, 15, 16), atol=1e-4)
    assert white[:, :, 0].abs().max() < 1e-4
    faint = image.clone()
    faint[0, :, 0] = 78  # one step of 255, against the floor of 0.05
    assert torch.allclose(pixels(faint)[0, :, 0], torch.tensor(1 / 255 / 0.05), atol=1e-3)


@pytest.mark.parametrize("measured", [False, True])
def test_round_trip(measured: bool) -> None:
    pixels, image = Pixels(16), noise()
    if measured:
        pixels.fit_statistics(image)
    assert torch.equal(pixels.unwhiten(pixels(image)), image)


def test_unwhiten_clips_to_what_a_pixel_can_hold() -> None:
    extreme = torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert Pixels(4).unwhiten(extreme)[:, 0, 0, 0].tolist() == [0, 255]


def test_resize_averages_areas_and_leaves_the_input_alone() -> None:
    image = noise(2, 8)
    before = image.clone()
    small = Pixels(4).resize(image)
    assert torch.allclose(small[1, 2, 3, 0], image[1, 2, 6:8, 0:2].float().mean() / 255)
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (1, 3, 8, 4), (1, 3, 2, 2)])
def test_sizes_that_do_not_divide(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not divide into 4x4"):
        Pixels(4)(torch.zeros(shape, dtype=torch.uint8))


def test_statistics_travel_in_the_state_dict() -> None:
    pixels, other = Pixels(16), Pixels(16)
    pixels.fit_statistics(noise())
    other.load_state_dict(pixels.state_dict())
    assert torch.equal(other(noise()), pixels(noise()))
