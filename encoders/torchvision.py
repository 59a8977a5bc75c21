"""Classification networks of torchvision. Legend: N images, S side, C channels, h x w places of the feature map."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision.models as zoo
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from encoders.backbone import IMAGENET_MEAN, IMAGENET_STD, RGB, Backbone, Seen
from encoders.pretrained import Pretrained
from encoders.readouts import Pooled, Readout, Shape
from encoders.weights import State, near, one_line, read, shapes

_HEADS = {"avgpool", "classifier", "fc", "flatten", "head", "heads"}
_BRANCHED = {"googlenet", "inception_v3"}  # heads on the way, and colours of their own


class TorchvisionBackbone(Backbone):
    """A classification network by its name in torchvision, without weights and without its classifier.

    Args:
        name: such as resnet18, mobilenet_v3_small, efficientnet_b0, convnext_tiny, vit_b_16, swin_t.
        size: side S of its images in pixels; of a transformer a multiple of the patch.
        stride: pixels from one place of the map to the next, such as 8, 16 or 32: what comes after the last map of
            that stride is cut off; null for the end. A transformer has but one.
        mean, std: of the colours in [0, 1] that the weights expect.

    Raises:
        ValueError: no such network or stride; a size that it cannot take.
    """

    def __init__(
        self, name: str, size: int = 224, stride: int | None = None, mean: RGB = IMAGENET_MEAN, std: RGB = IMAGENET_STD
    ) -> None:
        known = set(zoo.list_models(module=zoo)) - _BRANCHED
        if name not in known:
            raise ValueError(f"torchvision has no network {name!r} that can be read{near(name, known)}")
        try:
            # the only ones that are built for a size
            model = zoo.get_model(name, weights=None, **({"image_size": size} if name.startswith("vit_") else {}))
        except AssertionError as cause:
            raise ValueError(f"{name} cannot take images of {size} x {size}: {one_line(cause)}") from cause
        super().__init__(model, shapes(model), name=name, size=size, stride=stride, mean=mean, std=std)
        self._path = [] if isinstance(model, VisionTransformer) else _path(model)
        self._cut()

    def _cut(self) -> None:
        """Drop what comes after the last map of the stride."""
        heads = [name for name, _ in self.model.named_children() if name in _HEADS]
        strides = self._strides()
        if self.stride is not None:
            if self.stride not in strides:
                there = ", ".join(str(x) for x in sorted(set(strides)))
                raise ValueError(f"{self.name} has no stride {self.stride} at {self.size} pixels: it has {there}")
            end = len(strides) - strides[::-1].index(self.stride)
            self._path, after = self._path[:end], self._path[end:]
            heads += after
        for name in heads:
            self.model.set_submodule(name, nn.Identity())

    @torch.no_grad()
    def _strides(self) -> list[int]:
        """After each step of the path; of a transformer the patch."""
        if isinstance(self.model, VisionTransformer):
            return [self.model.patch_size]
        if self.stride is None:
            return []
        self.model.eval()
        x, found = torch.zeros(1, 3, self.size, self.size), []
        for name in self._path:
            x = self.model.get_submodule(name)(x)
            found.append(2 ** round(math.log2(self.size / x.shape[-2])))  # channels first or last, as in Swin
        return found

    def forward(self, image: Tensor) -> Seen:
        if isinstance(self.model, VisionTransformer):
            patches = rearrange(self.model.conv_proj(image), "n c h w -> n (h w) c")
            token = self.model.class_token.expand(len(patches), -1, -1)
            x = self.model.encoder(torch.cat([token, patches], 1))
            return Seen(rearrange(x[:, 1:], "n (h w) c -> n c h w", h=math.isqrt(patches.shape[1])), x[:, 0])
        for name in self._path:
            image = self.model.get_submodule(name)(image)
        if isinstance(self.model, SwinTransformer) and self._path[-1] != "permute":
            image = rearrange(image, "n h w c -> n c h w")
        return Seen(image, None)

    def blocks(self) -> list[list[nn.Parameter]]:
        model = self.model
        if isinstance(model, VisionTransformer):
            stem = [*model.conv_proj.parameters(), model.class_token, model.encoder.pos_embedding]
            layers = [list(layer.parameters()) for layer in model.encoder.layers]
            return [stem, *layers[:-1], [*layers[-1], *model.encoder.ln.parameters()]]
        found: list[list[nn.Parameter]] = []
        for name in self._path:
            module = model.get_submodule(name)
            own = list(module.parameters())
            if found and (not own or isinstance(module, _BatchNorm | nn.LayerNorm)):
                found[-1] += own  # a norm belongs to what comes before it
            else:
                found.append(own)
        return found

    def convert(self, state: State) -> State:
        name, model = "encoder.pos_embedding", self.model
        if isinstance(model, VisionTransformer) and name in state and state[name].dim() == 3:
            return dict(interpolate_embeddings(self.size, model.patch_size, OrderedDict(state)))
        return state


def _path(model: nn.Module) -> list[str]:
    """Names of the modules that an image passes, in order, down to blocks."""
    found: list[str] = []
    for name, child in model.named_children():
        if name in _HEADS:
            break
        found += _steps(name, child) if type(child) in (nn.Sequential, nn.ModuleList) else [name]
    return found


def _steps(name: str, parent: nn.Module) -> list[str]:
    """A stage is a sequence of blocks, each of several modules; anything else is a block."""
    found: list[str] = []
    for part, child in parent.named_children():
        is_stage = type(child) is nn.Sequential and all(list(x.children()) for x in child)
        found += _steps(f"{name}.{part}", child) if is_stage else [f"{name}.{part}"]
    return found


class TorchvisionEncoder(Pretrained):
    """A classification network of torchvision, with or without weights.

    Args:
        name: such as resnet18, mobilenet_v3_small, efficientnet_b0, convnext_tiny, vit_b_16, swin_t.
        weights: a name of torchvision's (IMAGENET1K_V1, ResNet18_Weights.IMAGENET1K_V1, DEFAULT), downloaded unless
            it is in ``$TORCH_HOME/hub/checkpoints``; or a file with a state dict; or null for random ones.
        readout: what is read of it, and the adapter.
        tune: how many of its last blocks are trained: 0 freezes all, null trains all.
        size: side of its images in pixels, to which others are resized.
        stride: pixels from one place of the map to the next, such as 8, 16 or 32; null for the end.
        mean, std: of the colours in [0, 1]; null for those of the weights, or else of ImageNet.
        batch: images that a frozen network sees at a time.

    Raises:
        ValueError: no such network, weights, file or stride; weights of another network; a size that it cannot take.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        readout: Callable[[Shape], Readout] = Pooled,
        tune: int | None = 0,
        size: int = 224,
        stride: int | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        batch: int = 8,
    ) -> None:
        backbone = TorchvisionBackbone(name, size, stride)
        if weights is not None:
            state, source, backbone.mean, backbone.std = _weights(name, weights)
            backbone.load(state, source)
        backbone.mean, backbone.std = mean or backbone.mean, std or backbone.std
        super().__init__(backbone, readout, tune, batch)


def _weights(name: str, weights: str) -> tuple[State, str, RGB, RGB]:
    """Tensors, where they are from, mean and std."""
    if Path(weights).expanduser().is_file():
        return read(weights), weights, IMAGENET_MEAN, IMAGENET_STD
    known = zoo.get_model_weights(name)
    members = list(known.__members__)
    member = weights.removeprefix(f"{known.__name__}.")
    if member not in members:
        hint = near(member, members) or f": it has {', '.join(members)}"
        raise ValueError(f"there is no weights file {weights}, and {name} has no weights of that name{hint}")
    chosen = known[member]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(chosen.url).path).name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(chosen.url, str(file), progress=False)
        except (OSError, RuntimeError) as cause:
            raise ValueError(
                f"the weights of {name} are not at {file} and were not downloaded ({one_line(cause)}): "
                f"put {chosen.url} there"
            ) from cause
    transforms = chosen.transforms()
    return read(file), str(file), tuple(transforms.mean), tuple(transforms.std)
