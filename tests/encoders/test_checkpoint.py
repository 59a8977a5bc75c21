"""Checkpoints as R3M, VIP and VC-1 write them, made from random networks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from encoders.checkpoint import CheckpointEncoder
from encoders.readouts import ClassToken, Pooled
from encoders.timm import TimmBackbone
from encoders.torchvision import TorchvisionBackbone
from tests.encoders.test_weights import Hostile

IMAGE = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
RESNET = partial(TorchvisionBackbone, "resnet18", 32)


def saved(folder: Path, held: object) -> str:
    torch.save(held, folder / "model.pt")
    return str(folder / "model.pt")


def wrapped(model: nn.Module, prefix: str = "module.convnet.") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


@pytest.fixture
def resnet() -> nn.Module:
    """Batch norms with statistics of their own, as after training."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model(torch.randn(8, 3, 32, 32))
    return model.eval()


def normalised() -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (IMAGE.float() / 255 - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize("project", ["r3m", "vip"])
def test_r3m_and_vip(tmp_path: Path, resnet: nn.Module, project: str) -> None:
    if project == "r3m":
        resnet.fc = nn.Identity()
        held = {"r3m": wrapped(resnet) | {"module.lang_enc.model.embeddings": torch.zeros(3)}}
    else:
        resnet.fc = nn.Linear(512, 1024)
        held = {"vip": wrapped(resnet)}
    encoder = CheckpointEncoder(saved(tmp_path, held), RESNET(), key=project, prefix="module.convnet.")
    resnet.fc = nn.Identity()
    with torch.no_grad():
        assert torch.allclose(encoder.features(IMAGE), resnet(normalised()), atol=1e-5)
    assert encoder.identity().startswith("CheckpointEncoder resnet18, Pooled, ")


def test_vc1(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0).eval()
    extra = {"mask_token": torch.zeros(1, 1, 192), "decoder_embed.weight": torch.zeros(3, 192)}
    file = saved(tmp_path, {"model": model.state_dict() | extra})
    backbone = partial(TimmBackbone, "vit_tiny_patch16_224", 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    encoder = CheckpointEncoder(file, backbone(), ignore=["decoder", "mask_token"], readout=ClassToken)
    with torch.no_grad():
        assert torch.allclose(encoder.features(IMAGE), model(normalised()), atol=1e-5)
    with pytest.raises(ValueError, match=r"decoder_embed.weight is not in it \(1 are not\)"):
        CheckpointEncoder(file, backbone(), ignore=["mask_token"])


def test_a_part_of_a_run_of_ones_own(tmp_path: Path, resnet: nn.Module) -> None:
    first = CheckpointEncoder(saved(tmp_path, resnet.state_dict()), RESNET(stride=16), tune=1)
    run = {"state_dict": {f"world_model.encoder.{name}": x for name, x in first.state_dict().items()}, "epoch": 3}
    prefix = "world_model.encoder.backbone.model."
    again = CheckpointEncoder(saved(tmp_path, run), RESNET(stride=16), prefix=prefix)
    assert all(torch.equal(x, first.backbone.state_dict()[name]) for name, x in again.backbone.state_dict().items())


def test_it_can_be_tuned(tmp_path: Path, resnet: nn.Module) -> None:
    encoder = CheckpointEncoder(saved(tmp_path, resnet.state_dict()), RESNET(), readout=Pooled, tune=1).train()
    before = {name: x.clone() for name, x in encoder.backbone.state_dict().items()}
    optimizer = torch.optim.SGD(encoder.pretrained_parameters(), 0.1)
    encoder(IMAGE).square().sum().backward()
    optimizer.step()
    changed = {name for name, x in encoder.backbone.state_dict().items() if not torch.equal(x, before[name])}
    assert changed and all(name.startswith("model.layer4.1.") for name in changed)


def test_mistakes(tmp_path: Path, resnet: nn.Module) -> None:
    file = saved(tmp_path, {"r3m": wrapped(resnet) | {"module.lang_enc": torch.zeros(3)}})

    def complaint(file: str, architecture: str = "resnet18", **settings: str) -> str:
        with pytest.raises(ValueError) as error:
            CheckpointEncoder(file, TorchvisionBackbone(architecture, 32), **settings)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "holds no 'vip': it holds r3m" in complaint(file, key="vip")
    assert "no name in" in complaint(file, key="r3m", prefix="modul.convnet.")
    error = complaint(file, key="r3m")
    assert f"{file} does not fit resnet18: conv1.weight is missing (" in error
    assert "; module.convnet.conv1.weight is not in it (123 are not)" in error
    error = complaint(file, "resnet34", prefix="module.convnet.")
    assert "does not fit resnet34: layer1.2.conv1.weight is missing (" in error
    error = complaint(file, "wide_resnet50_2", prefix="module.convnet.")
    assert "layer1.0.conv1.weight is (64, 64, 3, 3), not (128, 64, 1, 1)" in error
    hostile = saved(tmp_path, {"r3m": wrapped(resnet), "agent": Hostile(tmp_path / "ran")})
    assert "would run code" in complaint(hostile, key="r3m", prefix="module.convnet.")
    assert not (tmp_path / "ran").exists()
