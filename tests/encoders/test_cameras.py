from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from encoders.base import Encoder
from encoders.cameras import Cameras
from encoders.conv import ConvEncoder, PatchEncoder
from tests.frozen import FrozenConv


def noise(views: int = 2, n: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 3, 16, 16 * views), generator=generator, dtype=torch.uint8)


def test_each_view_goes_through_its_own_encoder() -> None:
    left, right = PatchEncoder(16, channels=(4, 6)), ConvEncoder(16, depth=2)
    cameras, image = Cameras([left, right]), noise()
    cameras.fit_statistics(image)
    embed = cameras(image)
    assert embed.shape == (5, cameras.embed_dim) and cameras.embed_dim == left.embed_dim + right.embed_dim
    assert torch.equal(embed[:, : left.embed_dim], left(image[..., :16]))
    assert torch.equal(embed[:, left.embed_dim :], right(image[..., 16:]))
    assert torch.allclose(left.pixels.mean, (image[..., :16] / 255.0).mean(0), atol=1e-6)


def test_one_camera_is_its_encoder() -> None:
    encoder, image = PatchEncoder(16), noise(1)
    assert torch.equal(Cameras([encoder])(image), encoder(image))


def test_frozen_views_are_stored_together() -> None:
    first, second = FrozenConv(0), FrozenConv(1)
    cameras, image = Cameras([first, second]), noise()
    features = cameras.features(image)
    assert cameras.feature_shape == (2 * 96,) and features.shape == (5, 192)
    assert torch.equal(features[:, :96].unflatten(1, (6, 4, 4)), first.features(image[..., :16]))
    assert torch.equal(cameras.adapt(features), cameras(image))
    assert cameras.identity() == f"{first.identity()}; {second.identity()}" != Cameras([second, first]).identity()
    assert torch.equal(cameras.features(image[2:3]), features[2:3])
    assert cameras.pretrained_parameters() == []


@pytest.mark.parametrize("other", [PatchEncoder(16), FrozenConv(tuned=True)])
def test_a_view_that_learns_cannot_be_stored(other: Encoder) -> None:
    cameras = Cameras([FrozenConv(), other])
    assert cameras.feature_shape is None
    assert cameras(noise()).shape == (5, cameras.embed_dim)
    tuned: list[nn.Parameter] = cameras.pretrained_parameters()
    assert [id(p) for p in tuned] == [id(p) for p in other.pretrained_parameters()]
    for asked in (cameras.identity, lambda: cameras.features(noise()), lambda: cameras.adapt(torch.zeros(5, 192))):
        with pytest.raises(ValueError, match="Cameras has no frozen features"):
            asked()


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="an image of 16x48 is not 2 square views side by side"):
        Cameras([PatchEncoder(16), PatchEncoder(16)])(noise(3))
    with pytest.raises(ValueError, match="needs an encoder for each view, and got none"):
        Cameras([])
