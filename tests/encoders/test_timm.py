from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import encoders.timm
from encoders.readouts import ClassToken
from encoders.timm import TimmBackbone, TimmEncoder

pytestmark = pytest.mark.filterwarnings("ignore:.* is random and frozen")
VIT = "vit_tiny_patch16_224"


def noise(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_it_is_not_mistaken_for_this_module() -> None:
    assert encoders.timm.timm is timm and not hasattr(timm, "TimmEncoder")


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [
        ("tf_efficientnet_lite0", 64, {None: (1280, 2), 8: (40, 8), 16: (112, 4), 32: (320, 2)}),
        ("mobilenetv4_conv_small", 32, {None: (960, 1), 8: (64, 4)}),
        ("resnet18", 32, {None: (512, 1), 16: (256, 2)}),
        ("convnext_atto", 32, {None: (320, 1), 8: (80, 4)}),
        ("swin_tiny_patch4_window7_224", 56, {16: (384, 4)}),
        (VIT, 32, {None: (192, 2), 16: (192, 2)}),
        ("vit_small_patch14_dinov2", 28, {None: (384, 2)}),
        ("vit_small_patch16_dinov3", 48, {None: (384, 3)}),
    ],
)
def test_stages(name: str, size: int, strides: dict[int | None, tuple[int, int]]) -> None:
    for stride, (channels, side) in strides.items():
        backbone = TimmBackbone(name, size, stride).eval()
        with torch.no_grad():
            seen = backbone(noise(size))
        assert seen.map.shape == (2, channels, side, side)
        assert (seen.token is None) == (not name.startswith("vit"))
        own = [id(p) for block in backbone.blocks() for p in block]
        assert sorted(own) == sorted(id(p) for p in backbone.parameters())


def test_a_stage_is_what_the_network_computes() -> None:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    with torch.no_grad():
        final, stages = model.forward_intermediates(noise(64))
        for stride, map_ in {None: final, 8: stages[2], 16: stages[3]}.items():
            backbone = TimmBackbone("tf_efficientnet_lite0", 64, stride).eval()
            backbone.load(model.state_dict(), "mine")
            assert torch.allclose(backbone(noise(64)).map, map_, atol=1e-5)


def test_tokens_are_told_from_patches() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_dinov3", img_size=48).eval()  # a class token and four registers
    backbone = TimmBackbone("vit_small_patch16_dinov3", 48).eval()
    backbone.load(model.state_dict(), "mine")
    with torch.no_grad():
        tokens, seen = model.forward_features(noise(48)), backbone(noise(48))
    assert tokens.shape == (2, 1 + 4 + 9, 384)
    assert torch.allclose(seen.token, tokens[:, 0], atol=1e-5)
    assert torch.allclose(seen.map[:, :, 1, 2], tokens[:, 5 + 3 + 2], atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("head", [True, False])
def test_files_with_or_without_a_classifier_and_of_another_size(tmp_path: Path, suffix: str, head: bool) -> None:
    model = timm.create_model(VIT, img_size=224)
    torch.nn.init.normal_(model.pos_embed)
    state = {name: x for name, x in model.state_dict().items() if head or not name.startswith("head")}
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, file)  # type: ignore[operator]
    same, small = (TimmEncoder(VIT, file=str(file), readout=ClassToken, size=size) for size in (224, 32))
    assert torch.equal(same.backbone.model.pos_embed, state["pos_embed"])
    assert small.backbone.model.pos_embed.shape == (1, 1 + 4, 192)
    assert torch.equal(small.backbone.model.pos_embed[:, 0], state["pos_embed"][:, 0])
    assert torch.equal(small.backbone.model.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])


def test_a_network_that_was_cut_is_loaded_into_the_same_cut(tmp_path: Path) -> None:
    first = TimmEncoder("tf_efficientnet_lite0", size=32, stride=8)
    torch.save({"step": 3, "weights": first.backbone.model.state_dict()}, tmp_path / "mine.pt")
    again = TimmEncoder("tf_efficientnet_lite0", file=str(tmp_path / "mine.pt"), size=32, stride=8)
    assert again.identity() == first.identity()
    with pytest.raises(ValueError, match=r"mine.pt does not fit .*: blocks.3.0.conv_pw.weight is missing \(\d+ are\)"):
        TimmEncoder("tf_efficientnet_lite0", file=str(tmp_path / "mine.pt"), size=32)


def test_colours_are_those_of_the_weights_or_given() -> None:
    assert TimmEncoder("resnet18", size=32).backbone.mean == (0.485, 0.456, 0.406)
    assert TimmEncoder("tf_efficientnet_lite0", size=32, stride=8).backbone.mean == (0.5, 0.5, 0.5)
    assert TimmEncoder("resnet18", size=32, std=(1.0, 2.0, 3.0)).std.flatten().tolist() == [1, 2, 3]


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise FileNotFoundError("no network,\n and no file in the cache")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(ValueError) as error:
        TimmEncoder("mobilenetv4_conv_small", pretrained=True, size=32)
    text = str(error.value)
    assert "not in Hugging Face's cache ($HF_HOME)" in text and "no network, and no file in the cache" in text
    assert text.endswith("give them as file") and "\n" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "mobilenetv4_conv_smal"},
            "timm has no network 'mobilenetv4_conv_smal': did you mean mobilenetv4_conv_",
        ),
        ({"name": f"{VIT}.augreg_in22k"}, "augreg_in22k': did you mean vit_tiny_patch16_224.augreg_in21k"),
        ({"stride": 5}, "resnet18 has no stride 5: it has 2, 4, 8, 16, 32"),
        ({"file": "no/such.pth"}, "there is no weights file no/such.pth"),
        ({"name": VIT, "size": 60}, f"{VIT} cuts images into patches of 16: size 60 is no multiple of it"),
        ({"name": VIT, "stride": 8}, f"{VIT} has no stride 8: it has 16"),
    ],
)
def test_mistakes(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        TimmEncoder(**{"name": "resnet18", "size": 32, **settings})  # type: ignore[arg-type]
    assert message in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    torch.save(timm.create_model("vit_small_patch16_224").state_dict(), tmp_path / "vit.pth")
    for name, file in [(VIT, "resnet"), ("resnet34", "resnet"), (VIT, "vit")]:
        with pytest.raises(ValueError) as error:
            TimmEncoder(name, file=str(tmp_path / f"{file}.pth"), size=32)
        assert f"{file}.pth does not fit {name}: " in str(error.value) and "\n" not in str(error.value)
    assert "cls_token is (1, 1, 384), not (1, 1, 192)" in str(error.value)
