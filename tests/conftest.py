from __future__ import annotations

import os
from collections.abc import Iterator

# Before torch reads it: two workers that take each other's cores are slower than one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """Commands set the precision of matrix products for their process, and the suite runs them in its own.

    So do fixtures of a module, which begin before this one: what was found is not what to go back to.
    """
    torch.set_float32_matmul_precision("highest")
    yield


_LONG = ("test_it_runs", "test_killed_and_started_again", "test_the_toy_task_is_learned")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest go first, or one process is left with one of them when the others have nothing to do."""
    items.sort(key=lambda item: not item.name.startswith(_LONG))
