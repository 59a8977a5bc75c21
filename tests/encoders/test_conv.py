from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from encoders.base import Encoder
from encoders.conv import ConvEncoder, PatchEncoder

BUILD = [
    lambda: PatchEncoder(32),
    lambda: PatchEncoder(16, channels=(4, 6), patch=2),
    lambda: ConvEncoder(64, depth=2),
    lambda: ConvEncoder(8, depth=4),
]


@pytest.mark.parametrize("build", BUILD)
def test_embeds_any_multiple_of_its_size(build: Callable[[], Encoder]) -> None:
    encoder = build()
    for side in (64, 128):
        embed = encoder(torch.randint(256, (3, 3, side, side), dtype=torch.uint8))
        assert embed.shape == (3, encoder.embed_dim)
        assert embed.isfinite().all()


@pytest.mark.parametrize("build", BUILD)
def test_measure_changes_what_is_seen(build: Callable[[], Encoder]) -> None:
    encoder = build()
    image = torch.randint(100, 110, (20, 3, 64, 64), dtype=torch.uint8)
    before = encoder(image)
    encoder.fit_statistics(image)
    assert not torch.allclose(before, encoder(image))


@pytest.mark.parametrize("build", [lambda: PatchEncoder(16), lambda: ConvEncoder(16, depth=8)])
def test_learns_where_a_square_is(build: Callable[[], Encoder]) -> None:
    torch.manual_seed(0)
    where = torch.randint(12, (64, 2))
    image = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    for i, (y, x) in enumerate(where.tolist()):
        image[i, :, y : y + 4, x : x + 4] = 255
    encoder = build()
    encoder.fit_statistics(image)
    head = torch.nn.Linear(encoder.embed_dim, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    target = where / 6 - 1
    for _ in range(60):
        loss = F.mse_loss(head(encoder(image)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()


@pytest.mark.parametrize("size", [12, 4, 0])
def test_sizes_a_net_cannot_have(size: int) -> None:
    with pytest.raises(ValueError, match="size must be a power of two"):
        ConvEncoder(size)
    with pytest.raises(ValueError, match="multiple of twice the patch"):
        PatchEncoder(size)
