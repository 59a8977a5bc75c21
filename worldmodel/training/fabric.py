"""Devices, ranks and precision."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import Logger

from encoders.ranges import PositiveInt
from worldmodel.errors import UserError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
MatmulPrecision = Literal["highest", "high", "medium"]


def make_fabric(
    accelerator: str = "auto",
    strategy: str = "auto",
    devices: int | list[int] | str = 1,
    num_nodes: PositiveInt = 1,
    precision: Precision = "32-true",
    matmul_precision: MatmulPrecision = "medium",
    loggers: list[Logger] | None = None,
) -> Fabric:
    """Lightning Fabric, which launches the processes and knows where they are. Sets the precision of products.

    Args:
        accelerator: cpu, cuda or auto.
        strategy: how processes work together, such as ddp.
        devices: how many of them, or which.
        num_nodes: machines.
        precision: what losses are computed in; weights stay in float32.
        matmul_precision: how float32 matrices are multiplied. With medium a CPU takes its fastest kernels (float32 all
            the same, but where it has AMX: there bfloat16), a GPU TensorFloat32.
        loggers: of Lightning, by class_path, beside metrics.csv.

    Raises:
        UserError: there is no such accelerator, strategy or device.
    """
    torch.set_float32_matmul_precision(matmul_precision)
    given: dict[str, Any] = {"accelerator": accelerator, "strategy": strategy, "devices": devices}
    try:
        return Fabric(**given, num_nodes=num_nodes, precision=precision, loggers=loggers or [])
    except (ValueError, RuntimeError, TypeError, ImportError) as cause:  # Lightning has all of these
        raise UserError(f"fabric: {' '.join(str(cause).split())}") from cause
