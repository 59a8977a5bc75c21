from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor

from encoders.backbone import IMAGENET_MEAN, IMAGENET_STD
from encoders.readouts import Spatial
from encoders.torchvision import TorchvisionBackbone, TorchvisionEncoder

pytestmark = pytest.mark.filterwarnings("ignore:.* is random and frozen")
IMAGE = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def normalised() -> Tensor:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (IMAGE / 255 - mean) / std


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", {None: (512, 1), 4: (64, 8), 8: (128, 4), 16: (256, 2), 32: (512, 1)}),
        ("mobilenet_v2", {None: (1280, 1), 16: (96, 2)}),
        ("efficientnet_b0", {None: (1280, 1), 8: (40, 4)}),
        ("convnext_tiny", {None: (768, 1), 16: (384, 2)}),
        ("swin_t", {None: (768, 1), 8: (192, 4)}),
        ("densenet121", {None: (1024, 1), 8: (512, 4)}),
    ],
)
def test_stages(name: str, strides: dict[int | None, tuple[int, int]]) -> None:
    for stride, (channels, side) in strides.items():
        backbone = TorchvisionBackbone(name, 32, stride).eval()
        seen = backbone(normalised())
        assert seen.map.shape == (2, channels, side, side) and seen.token is None
        # nothing is kept that is not used, and every parameter is of one block
        own = [id(p) for block in backbone.blocks() for p in block]
        assert sorted(own) == sorted(id(p) for p in backbone.parameters())
        seen.map.sum().backward()
        assert all(p.grad is not None for p in backbone.parameters())


def test_a_stage_is_what_the_network_computes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    stages: list[Tensor] = []
    model.layer2.register_forward_hook(lambda _, __, output: stages.append(output))
    model.avgpool.register_forward_hook(lambda _, __, output: stages.append(output.flatten(1)))
    with torch.no_grad():
        model(normalised())
    early = TorchvisionEncoder("resnet18", str(tmp_path / "mine.pth"), readout=Spatial, size=32, stride=8)
    last = TorchvisionEncoder("resnet18", str(tmp_path / "mine.pth"), size=32)
    assert torch.allclose(early.features(IMAGE), stages[0], atol=1e-5)
    assert torch.allclose(last.features(IMAGE), stages[1], atol=1e-5)


def test_a_transformer_is_what_the_network_computes_and_takes_weights_of_another_size() -> None:
    torch.manual_seed(0)
    model = torchvision.models.vit_b_16(image_size=32).eval()
    model.heads = torch.nn.Identity()
    torch.nn.init.normal_(model.encoder.pos_embedding)
    backbone = TorchvisionBackbone("vit_b_16", 32, 16).eval()
    backbone.load(model.state_dict(), "mine")
    with torch.no_grad():
        seen = backbone(normalised())
        assert torch.allclose(seen.token, model(normalised()), atol=1e-5)
    assert seen.map.shape == (2, 768, 2, 2)
    assert [len(block) for block in backbone.blocks()] == [4, *[12] * 11, 14]
    larger = {name: x for name, x in model.state_dict().items()}
    larger["encoder.pos_embedding"] = torch.randn(1, 1 + 14 * 14, 768)  # of 224 pixels
    backbone.load(larger, "larger")
    assert torch.equal(backbone.model.encoder.pos_embedding[:, 0], larger["encoder.pos_embedding"][:, 0])


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1", "DEFAULT"])
def test_weights_by_name_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "hub/checkpoints/resnet18-f37072fd.pth")
    encoder = TorchvisionEncoder("resnet18", weights, size=32)
    assert torch.equal(encoder.backbone.model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert encoder.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ValueError) as error:
        TorchvisionEncoder("resnet18", "IMAGENET1K_V1", size=32)
    text = str(error.value)
    assert f"not at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in text and "no network" in text
    assert text.endswith("put https://download.pytorch.org/models/resnet18-f37072fd.pth there") and "\n" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet81"}, "no network 'resnet81' that can be read: did you mean resnet18"),
        ({"name": "googlenet"}, "no network 'googlenet' that can be read"),
        ({"stride": 5}, "resnet18 has no stride 5 at 32 pixels: it has 2, 4, 8, 16, 32"),
        ({"weights": "IMAGENET1K_V3"}, "has no weights of that name: did you mean IMAGENET1K_V1"),
        ({"weights": "no/such.pth"}, "there is no weights file no/such.pth"),
        ({"name": "vit_b_16", "size": 60}, "vit_b_16 cannot take images of 60 x 60"),
        ({"name": "squeezenet1_1", "size": 8}, "squeezenet1_1 cannot take images of 8 x 8"),
    ],
)
def test_mistakes(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        TorchvisionEncoder(**{"name": "resnet18", "size": 32, **settings})  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)
