from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldmodel.model.decoder import CamerasDecoder, ConvDecoder, Decoder, PatchDecoder

BUILD = [
    lambda: PatchDecoder(5, 16, channels=(4, 6)),
    lambda: PatchDecoder(5, 16, channels=(4, 6), patch=2),
    lambda: ConvDecoder(5, 16, depth=8),
    lambda: ConvDecoder(5, 8, depth=4),
]


@pytest.mark.parametrize("build", BUILD)
def test_shapes(build: Callable[[], Decoder]) -> None:
    decoder = build()
    size = decoder.pixels.size
    feature = torch.randn(2, 3, 5)
    assert decoder(feature[0]).shape == (3, 3, size, size)
    image = decoder.image(feature)
    assert image.shape == (2, 3, 3, size, size) and image.dtype == torch.uint8
    assert torch.equal(image[1], decoder.image(feature[1]))
    assert decoder.loss(feature[0], torch.zeros(3, 3, 2 * size, 2 * size, dtype=torch.uint8)).shape == (3,)


@pytest.mark.parametrize("size", [8, 16])
def test_loss_does_not_depend_on_the_resolution(size: int) -> None:
    decoder = PatchDecoder(5, size)
    for p in decoder.parameters():
        torch.nn.init.zeros_(p)  # paints mid-grey
    white = torch.full((1, 3, size, size), 255, dtype=torch.uint8)
    # every pixel is 2 deviations off
    assert decoder.loss(torch.zeros(1, 5), white).item() == pytest.approx(0.5 * 4 * 3 * 64 * 64)


@pytest.mark.parametrize("build", BUILD)
def test_learns_four_pictures_by_heart(build: Callable[[], Decoder]) -> None:
    torch.manual_seed(0)
    decoder = build()
    size = decoder.pixels.size
    image = torch.zeros(4, 3, size, size, dtype=torch.uint8)
    for i in range(4):
        image[i, :, 2 * i : 2 * i + 2, : size // 2] = 255
    decoder.fit_statistics(image)
    feature = torch.eye(4, 5)
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    first = decoder.loss(feature, image).mean().item()
    for _ in range(100):
        loss = decoder.loss(feature, image).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    assert (decoder.image(feature).int() - image.int()).abs().float().mean() < 20


@pytest.mark.parametrize("size", [12, 4, 0])
def test_sizes_a_net_cannot_have(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of twice the patch"):
        PatchDecoder(5, size)
    with pytest.raises(ValueError, match="size must be a power of two"):
        ConvDecoder(5, size)


def two_views() -> tuple[CamerasDecoder, Tensor]:
    torch.manual_seed(0)
    decoder = CamerasDecoder(5, [lambda f: PatchDecoder(f, 16, channels=(4, 6)), lambda f: ConvDecoder(f, 16, depth=4)])
    return decoder, torch.randint(256, (4, 3, 32, 64), dtype=torch.uint8)


def test_cameras_are_painted_side_by_side() -> None:
    decoder, image = two_views()
    left, right = decoder.decoders
    feature = torch.randn(4, 5)
    assert torch.equal(decoder(feature), torch.cat([left(feature), right(feature)], -1))
    whole = decoder.image(feature)
    assert whole.shape == (4, 3, 16, 32) and whole.dtype == torch.uint8
    assert torch.equal(whole, torch.cat([left.image(feature), right.image(feature)], -1))
    loss = left.loss(feature, image[..., :32]) + right.loss(feature, image[..., 32:])
    assert torch.allclose(decoder.loss(feature, image), loss)
    assert {name.split(".")[1] for name, _ in decoder.named_parameters()} == {"0", "1"}


def test_cameras_have_pixels_of_their_own() -> None:
    decoder, image = two_views()
    decoder.fit_statistics(image)
    pixels, (left, right) = decoder.pixels, decoder.decoders
    small = pixels.resize(image)
    assert pixels.size == 16 and small.shape == (4, 3, 16, 32)
    assert torch.equal(small[..., 16:], right.pixels.resize(image[..., 32:]))
    assert torch.allclose(pixels.mean, small.mean(0), atol=1e-6)
    assert torch.equal(pixels.std, torch.cat([left.pixels.std, right.pixels.std], -1))
    white = pixels(image)
    assert torch.allclose(white, (small - pixels.mean) / pixels.std)
    assert (pixels.unwhiten(white) - small.mul(255)).abs().max() < 0.51
    state = decoder.state_dict()
    other, _ = two_views()
    other.load_state_dict(state)
    assert torch.equal(other.pixels.mean, pixels.mean)


def test_cameras_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"all of one size: got sizes \[8, 16\]"):
        CamerasDecoder(5, [lambda f: PatchDecoder(f, 8), lambda f: PatchDecoder(f, 16)])
    with pytest.raises(ValueError, match=r"a decoder for each view, all of one size: got sizes \[\]"):
        CamerasDecoder(5, [])
    decoder, image = two_views()
    with pytest.raises(ValueError, match="32x32 is not 2 square views"):
        decoder.loss(torch.zeros(4, 5), image[..., :32])
