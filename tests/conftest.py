from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """Commands set the precision of matrix products for their process, and the suite runs them in its own."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
