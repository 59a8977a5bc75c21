from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from encoders.checkpoint import CheckpointEncoder
from encoders.pretrained import Pretrained
from encoders.readouts import ClassToken, Pooled, Shape, Spatial
from encoders.timm import TimmEncoder
from encoders.torchvision import TorchvisionBackbone, TorchvisionEncoder

RESNET = partial(TorchvisionEncoder, "resnet18", size=32)
MOBILENET = partial(TorchvisionEncoder, "mobilenet_v3_small", size=32, stride=8)
LITE = partial(TimmEncoder, "tf_efficientnet_lite0", size=32, stride=8)
VIT = partial(TimmEncoder, "vit_tiny_patch16_224", size=32)
BUILD = {
    "pooled": partial(RESNET, readout=Pooled),
    "spatial": partial(MOBILENET, readout=partial(Spatial, channels=3)),
    "timm": partial(LITE, readout=partial(Spatial, channels=4)),
    "token": partial(VIT, readout=partial(ClassToken, width=10)),
    "patches": partial(VIT, readout=Spatial, batch=5),
}
each = pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)


@pytest.fixture(autouse=True)
def _random_weights() -> Iterator[None]:
    """All that is built here is random, and warns of it."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is random and frozen")
        yield


def noise(n: int = 17, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def update(encoder: Pretrained) -> None:
    """A step of everything that learns."""
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 0.1)
    encoder(noise(4)).square().sum().backward()
    optimizer.step()


@each
def test_embeds_images_of_any_size(build: Callable[..., Pretrained]) -> None:
    encoder = build()
    for side in (32, 48, 64):
        image = noise(3, side)
        features = encoder.features(image)
        assert encoder.feature_shape is not None and features.shape == (3, *encoder.feature_shape)
        assert features.dtype == torch.float32
        embed = encoder(image)
        assert embed.shape == (3, encoder.embed_dim) and embed.isfinite().all()
        assert torch.equal(embed, encoder.adapt(features))


def test_readouts_keep_what_they_say() -> None:
    encoder = BUILD["spatial"]()
    assert encoder.feature_shape == (24, 4, 4) and encoder.embed_dim == 3 * 4 * 4
    assert (BUILD["pooled"]().feature_shape, BUILD["pooled"]().embed_dim) == ((512,), 256)
    assert (BUILD["token"]().feature_shape, BUILD["token"]().embed_dim) == ((192,), 10)
    # another scale of the backbone is the same to the adapter
    features = encoder.features(noise(2))
    assert torch.allclose(encoder.adapt(1e4 * features), encoder.adapt(1e6 * features), atol=1e-2)


def test_spatial_knows_where() -> None:
    encoder = BUILD["spatial"]()
    left, right = torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8).unbind(0)
    left[..., 4:12, 4:12], right[..., 4:12, 20:28] = 255, 255
    change = (encoder.features(left) - encoder.features(right)).abs().mean((0, 1))  # (4, 4)
    assert change.argmax() // 4 < 3 and change[3, :].mean() < 0.5 * change[:2].mean()


@each
def test_features_are_the_same_to_the_last_bit_whatever_else_is_in_the_batch(build: Callable[..., Pretrained]) -> None:
    encoder, image = build(), noise()
    whole = encoder.features(image)
    for size in (1, 3, 16):
        for start in (0, 1):
            assert torch.equal(encoder.features(image[start : start + size]), whole[start : start + size])
    order = torch.randperm(len(image))
    assert torch.equal(encoder.features(image[order]), whole[order])
    assert encoder.features(image[:0]).shape == (0, *whole.shape[1:])


@each
def test_features_are_the_same_under_autocast_and_in_training(build: Callable[..., Pretrained]) -> None:
    encoder, image = build(), noise(3)
    before = encoder.features(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.features(image), before)
    assert torch.equal(encoder.train().features(image), before)


@each
def test_what_is_frozen_stays(build: Callable[..., Pretrained]) -> None:
    encoder = build().train()
    before = values(encoder)
    assert not any(module.training for module in encoder.backbone.modules())
    assert not any(p.requires_grad for p in encoder.backbone.parameters())
    assert not encoder.features(noise(2)).requires_grad
    assert encoder.pretrained_parameters() == []
    update(encoder)
    assert all(p.grad is None for p in encoder.backbone.parameters())
    changed = moved(before, encoder)
    assert changed == {f"readout.{name}" for name in encoder.readout.state_dict()}


@pytest.mark.parametrize(
    ("build", "tune", "blocks"),
    [
        (RESNET, 1, ("layer4.1.",)),
        (RESNET, 3, ("layer3.1.", "layer4.")),
        (LITE, 2, ("blocks.2.",)),
        (VIT, 1, ("blocks.11.", "norm.")),
        (partial(VIT, readout=ClassToken), 2, ("blocks.10.", "blocks.11.", "norm.")),
    ],
)
def test_the_last_blocks_are_tuned_and_no_others(
    build: Callable[..., Pretrained], tune: int, blocks: tuple[str, ...]
) -> None:
    encoder = build(tune=tune).train()
    encoder.backbone.loaded = True
    before = values(encoder.backbone)
    assert encoder.feature_shape is None
    update(encoder)
    learns = {f"model.{name}" for name, p in encoder.backbone.model.named_parameters() if name.startswith(blocks)}
    changed = moved(before, encoder.backbone)
    assert changed <= learns and len(changed) > 0.8 * len(learns)
    tuned = {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}
    assert tuned == learns
    assert len(encoder.pretrained_parameters()) == len(learns)


def test_all_is_trained_but_what_nothing_depends_on() -> None:
    encoder = TimmEncoder("mobilenetv4_conv_small", size=32, tune=None)
    still = {name for name, p in encoder.backbone.named_parameters() if not p.requires_grad}
    assert still and all("head" in name for name in still)
    assert encoder.pretrained_parameters() == []  # from scratch: nothing is pretrained
    with pytest.raises(ValueError, match="is tuned: its features change"):
        encoder.features(noise(1))
    with pytest.raises(ValueError, match="is tuned: its features change"):
        encoder.identity()
    encoder(noise(2)).sum().backward()
    assert all((p.grad is None) == (name in still) for name, p in encoder.backbone.named_parameters())


def test_identity_names_the_frozen_part() -> None:
    first, again, other = (RESNET(readout=readout) for readout in (Pooled, Spatial, Pooled))
    name = first.identity()
    assert name.startswith("TorchvisionEncoder resnet18, Pooled, stride last, size 32, ")
    assert len(name.rpartition(", ")[2]) == 16
    assert other.identity() != name
    again.backbone.load_state_dict(first.backbone.state_dict())
    assert again.identity().rpartition(", ")[2] == name.rpartition(", ")[2] and again.identity() != name
    other.load_state_dict(first.state_dict())
    assert other.identity() == name
    bright = TorchvisionEncoder("resnet18", size=32, mean=(0.4, 0.4, 0.4))
    bright.load_state_dict(first.state_dict())
    assert bright.identity() != name


def test_colours_are_normalised() -> None:
    encoder = RESNET(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0))
    image = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    seen: list[Tensor] = []
    encoder.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder(image)
    expected = torch.tensor([1.0, 1.5, 0.5]).view(3, 1, 1).expand(3, 32, 32)
    assert torch.allclose(seen[0][0], expected)


def test_batch_norms_of_a_network_from_scratch_are_measured_once() -> None:
    encoder, image = RESNET(tune=None).train(), noise(16)
    outputs: list[Tensor] = []
    encoder.backbone.model.bn1.register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
    encoder.fit_statistics(image)
    outputs.clear()
    encoder(image)
    assert torch.allclose(outputs[0].mean((0, 2, 3)), torch.zeros(64), atol=1e-4)
    assert torch.allclose(outputs[0].std((0, 2, 3)), torch.ones(64), atol=1e-2)
    before = values(encoder)
    encoder.fit_statistics(noise(8))
    assert not moved(before, encoder)


@pytest.mark.parametrize("settings", [{"tune": 0}, {"tune": 1}])
def test_batch_norms_of_others_keep_their_statistics(settings: dict[str, int]) -> None:
    encoder = RESNET(**settings)
    before = values(encoder)
    encoder.fit_statistics(noise(8))
    assert not moved(before, encoder)


def test_who_is_random_and_frozen_is_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RESNET(tune=None)
        with pytest.raises(UserWarning, match="resnet18 is random and frozen: give it weights, or train it"):
            RESNET()


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="resnet18 has 9 blocks with its stem: tune at most these, not 10"):
        RESNET(tune=10)
    with pytest.raises(ValueError, match="not -1"):
        RESNET(tune=-1)
    with pytest.raises(ValueError, match="no class token: read it with Pooled or Spatial"):
        RESNET(readout=ClassToken)
    with pytest.raises(ValueError, match="at least 1 image at a time, got batch 0"):
        RESNET(batch=0)
    with pytest.raises(ValueError, match="std above zero"):
        RESNET(std=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="32x64 are not square: give each camera its encoder"):
        RESNET()(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="needs a checkpoint: give its path as file"):
        CheckpointEncoder(None, TorchvisionBackbone("resnet18", 32))


def test_a_readout_is_built_from_the_shape() -> None:
    shapes: list[Shape] = []

    def readout(shape: Shape) -> Pooled:
        shapes.append(shape)
        return Pooled(shape)

    VIT(readout=readout)
    RESNET(readout=readout, stride=8)
    assert shapes == [Shape(192, 2, 2, True), Shape(128, 4, 4, False)]


def test_only_who_asks_for_timm_loads_it() -> None:
    code = "import sys, encoders.conv, encoders.cameras, encoders.checkpoint; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
