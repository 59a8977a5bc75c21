from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from encoders.weights import fit, read, shapes

STATE = {"net.0.weight": torch.randn(3, 2), "net.0.bias": torch.randn(3)}


def network() -> nn.Module:
    return nn.ModuleDict({"net": nn.Sequential(nn.Linear(2, 3))})


def saved(folder: Path, held: Any) -> str:
    torch.save(held, folder / "mine.pth")
    return str(folder / "mine.pth")


@pytest.mark.parametrize(
    ("held", "key", "prefix"),
    [
        (STATE, None, ""),
        ({"r3m": STATE, "step": 3}, "r3m", ""),
        ({"model": STATE, "optimizer": {"state": {}}, "args": argparse.Namespace(size=3)}, None, ""),
        ({"vip": {"other": torch.zeros(1)} | {f"module.{k}": v for k, v in STATE.items()}}, "vip", "module."),
    ],
)
def test_finds_the_state_dict(tmp_path: Path, held: Any, key: str | None, prefix: str) -> None:
    found = read(saved(tmp_path, held), key, prefix)
    assert found.keys() == STATE.keys() and all(torch.equal(found[k], v) for k, v in STATE.items())


def test_reads_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "mine.safetensors")
    assert torch.equal(read(tmp_path / "mine.safetensors")["net.0.bias"], STATE["net.0.bias"])


@pytest.mark.parametrize(
    ("held", "key", "prefix", "message"),
    [
        (
            {"student": STATE, "teacher": STATE},
            None,
            "",
            "holds student, teacher: name the one with the weights as key",
        ),
        ({"step": 3}, None, "", "holds step: name the one with the weights as key"),
        (3, None, "", "holds nothing by name"),
        ({"model": STATE, "step": 3}, "modle", "", "holds no 'modle': did you mean model?"),
        ({"model": STATE, "step": 3}, "r3m", "", "holds no 'r3m': it holds model, step"),
        ({"model": STATE, "step": 3}, "step", "", "'step' in .* is no state dict"),
        (STATE, None, "module.", "no name in .* begins with prefix 'module.': the first is net.0.weight"),
    ],
)
def test_says_what_is_there_instead(tmp_path: Path, held: Any, key: str | None, prefix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path, held), key, prefix)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_runs_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": STATE, "extra": Hostile(tmp_path / "ran")})
    with pytest.raises(ValueError) as error:
        read(file, "model")
    assert "objects that would run code when they are loaded" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "text.pth"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("cut"):
        (save_file if path.suffix == ".safetensors" else torch.save)(STATE, path)  # type: ignore[operator]
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_text("" if name.startswith("empty") else "no weights at all")
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(path) in str(error.value) and "damaged" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"there is no weights file no/such\.pth"):
        read("no/such.pth")


def test_fits_what_is_used() -> None:
    module = network()
    whole = shapes(module) | {"head.weight": torch.Size([5, 3])}
    fit(module, STATE | {"head.weight": torch.zeros(7, 3)}, whole, "net", "mine.pth")  # a head of other classes
    assert torch.equal(module.state_dict()["net.0.weight"], STATE["net.0.weight"])
    fit(module, {name: x.half() for name, x in STATE.items()}, whole, "net", "mine.pth")
    assert module.state_dict()["net.0.weight"].dtype == torch.float32


def test_fits_by_order_where_only_names_differ() -> None:
    module = network()
    theirs = {"_first.weight": STATE["net.0.weight"], "_first.bias": STATE["net.0.bias"]}
    fit(module, theirs, shapes(module), "net", "mine.pth")
    assert torch.equal(module.state_dict()["net.0.bias"], STATE["net.0.bias"])
    for other in (dict(reversed(theirs.items())), {"a.weight": torch.zeros(3, 2), "a.scale": torch.zeros(3)}):
        with pytest.raises(ValueError, match=r"net.0.weight is missing \(2 are\)"):
            fit(module, other, shapes(module), "net", "mine.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"net.0.weight": STATE["net.0.weight"]}, r"mine.pth does not fit net: net.0.bias is missing \(1 are\)$"),
        (STATE | {"a": torch.zeros(1), "b": torch.zeros(1)}, r"fit net: a is not in it \(2 are not\)$"),
        (STATE | {"net.0.bias": torch.zeros(4)}, r"fit net: net.0.bias is \(4,\), not \(3,\) \(1 differ\)$"),
        (
            {"net.0.bias": torch.zeros(4), "x": torch.zeros(1)},
            r"weight is missing .*; x is not in it .*; net.0.bias is",
        ),
    ],
)
def test_says_what_does_not_fit(state: dict[str, torch.Tensor], message: str) -> None:
    module = network()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fit(module, state, shapes(module), "net", "mine.pth")
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
