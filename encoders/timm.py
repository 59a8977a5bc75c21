"""Networks of timm. Legend: N images, S side, C channels, h x w places of the feature map, L tokens."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import timm
from einops import rearrange
from timm.models import get_pretrained_cfg, group_parameters
from torch import Tensor, nn

from encoders.backbone import RGB, Backbone, Seen
from encoders.pretrained import Pretrained
from encoders.readouts import Pooled, Readout, Shape
from encoders.weights import State, near, one_line, read, shapes


class TimmBackbone(Backbone):
    """A network by its name in timm, without its classifier.

    Args:
        name: such as vit_small_patch14_dinov2 or tf_efficientnet_lite0; a tag names the weights, as in
            ``vit_base_patch16_224.mae``.
        size: side S of its images in pixels; of a transformer a multiple of the patch.
        stride: pixels from one place of the map to the next, such as 8, 16 or 32: what comes after the last map of
            that stride is cut off; null for the end.
        mean, std: of the colours in [0, 1]; null for those that timm knows of the weights.
        pretrained: with timm's weights, downloaded unless they are in Hugging Face's cache.

    Raises:
        ValueError: no such network or stride; weights that cannot be had; a size that it cannot take.
    """

    def __init__(
        self,
        name: str,
        size: int = 224,
        stride: int | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        pretrained: bool = False,
    ) -> None:
        model = _create(name, size, pretrained)
        known = model.pretrained_cfg
        mean, std = mean or tuple(known["mean"]), std or tuple(known["std"])
        super().__init__(model, shapes(model), name=name, size=size, stride=stride, mean=mean, std=std)
        self.loaded = pretrained
        self._cut()

    def _cut(self) -> None:
        """Drop the classifier, and what comes after the last map of the stride."""
        if self.stride is None:
            self.model.reset_classifier(0, "")
            return
        strides = [stage["reduction"] for stage in self.model.feature_info]
        if self.stride not in strides:
            there = ", ".join(str(x) for x in sorted(set(strides)))
            raise ValueError(f"{self.name} has no stride {self.stride}: it has {there}")
        last = len(strides) - 1 - strides[::-1].index(self.stride)
        self.model.prune_intermediate_layers([last], prune_norm=False, prune_head=True)

    def forward(self, image: Tensor) -> Seen:
        x = self.model.forward_features(image)
        if x.dim() == 3:  # (N, L, C): class and register tokens, then patches
            prefix = getattr(self.model, "num_prefix_tokens", 0)
            patches = x[:, prefix:]
            token = x[:, 0] if getattr(self.model, "cls_token", None) is not None else None
            return Seen(rearrange(patches, "n (h w) c -> n c h w", h=math.isqrt(patches.shape[1])), token)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            x = rearrange(x, "n h w c -> n c h w")
        return Seen(x, None)

    def blocks(self) -> list[list[nn.Parameter]]:
        found = group_parameters(self.model, self.model.group_matcher(coarse=False), return_values=True)
        return [found[i] for i in sorted(found)]

    def convert(self, state: State) -> State:
        """By timm's own function for this network: original names, position embeddings of another size."""
        own = shapes(self.model)
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is None or all(name in state and state[name].shape == own[name] for name in own):
            return state
        try:
            return convert(dict(state), self.model)
        except Exception:  # of another network: what differs is said when they are compared
            return state


def _create(name: str, size: int, pretrained: bool) -> Any:
    """The whole network, for images of ``size``."""
    bare = name.partition(".")[0]
    if not timm.is_model(bare):
        raise ValueError(f"timm has no network {name!r}{near(bare, timm.list_models())}")
    try:
        known = get_pretrained_cfg(name)
    except RuntimeError as cause:
        tags = timm.list_pretrained(f"{bare}.*")
        hint = near(name, tags) or f": it has {', '.join(tags)}"
        raise ValueError(f"timm has no weights {name!r}{hint}") from cause
    # a network of fixed size is built for it; all others take any
    sizes: dict[str, Any] = {"img_size": size} if known is not None and known.fixed_input_size else {}
    try:
        model = timm.create_model(name, **sizes)
    except (RuntimeError, AssertionError, ValueError) as cause:
        raise ValueError(f"{name} cannot take images of {size} x {size}: {one_line(cause)}") from cause
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))[0]
    if size % patch:
        raise ValueError(f"{name} cuts images into patches of {patch}: size {size} is no multiple of it")
    if not pretrained:
        return model
    try:
        return timm.create_model(name, pretrained=True, **sizes)
    except Exception as cause:  # of the hub, of the network, of the disk
        raise ValueError(
            f"the weights of {name} are not in Hugging Face's cache ($HF_HOME) and were not downloaded "
            f"({one_line(cause)}): give them as file"
        ) from cause


class TimmEncoder(Pretrained):
    """A network of timm, with or without weights.

    Args:
        name: such as vit_small_patch14_dinov2, mobilenetv4_conv_small or tf_efficientnet_lite0.
        pretrained: with timm's weights, downloaded unless they are in Hugging Face's cache.
        file: weights in a safetensors or torch file, instead.
        readout: what is read of it, and the adapter.
        tune: how many of its last blocks are trained: 0 freezes all, null trains all.
        size: side of its images in pixels, to which others are resized.
        stride: pixels from one place of the map to the next, such as 8, 16 or 32; null for the end.
        mean, std: of the colours in [0, 1]; null for those that timm knows of the weights.
        batch: images that a frozen network sees at a time.

    Raises:
        ValueError: no such network, weights, file or stride; weights of another network; a size that it cannot take.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        file: str | None = None,
        readout: Callable[[Shape], Readout] = Pooled,
        tune: int | None = 0,
        size: int = 224,
        stride: int | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
        batch: int = 8,
    ) -> None:
        backbone = TimmBackbone(
            name, size=size, stride=stride, mean=mean, std=std, pretrained=pretrained and file is None
        )
        if file is not None:
            backbone.load(read(file), file)
        super().__init__(backbone, readout, tune, batch)
