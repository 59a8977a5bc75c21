"""Weights from a checkpoint of one's own, or of a project such as R3M, VIP or VC-1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from encoders.backbone import Backbone
from encoders.pretrained import Pretrained
from encoders.readouts import Pooled, Readout, Shape
from encoders.weights import read


class CheckpointEncoder(Pretrained):
    """A backbone with the weights of a checkpoint.

    R3M (Nair et al. 2022) and VIP (Ma et al. 2023) wrap a torchvision ResNet: key ``r3m`` or ``vip``, prefix
    ``module.convnet.``. VC-1 (Majumdar et al. 2023) is a vision transformer under timm's names: key ``model``. All of
    them scale pixels to [0, 1] and then take off ImageNet's mean and deviation.

    Args:
        file: the checkpoint, of torch or safetensors.
        architecture: the backbone that the weights are for, such as ``encoders.torchvision.TorchvisionBackbone``.
        key: where in the file the state dict is; not needed if the file holds only one.
        prefix: taken are the names that begin with it, without it.
        ignore: names that begin with one of these are left out. A classifier may be there, or not, anyway.
        readout: what is read of it, and the adapter.
        tune: how many of its last blocks are trained: 0 freezes all, null trains all.
        batch: images that a frozen backbone sees at a time.

    Raises:
        ValueError: no such file, key or prefix; a file that would run code; weights of another architecture.
    """

    def __init__(
        self,
        file: str | None,
        architecture: Backbone,
        key: str | None = None,
        prefix: str = "",
        ignore: Sequence[str] = (),
        readout: Callable[[Shape], Readout] = Pooled,
        tune: int | None = 0,
        batch: int = 8,
    ) -> None:
        if file is None:
            raise ValueError("CheckpointEncoder needs a checkpoint: give its path as file")
        architecture.load(read(file, key, prefix), file, ignore)
        super().__init__(architecture, readout, tune, batch)
