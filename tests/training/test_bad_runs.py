"""Runs that another version has made, that someone has edited, or of which a part is gone: one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.conftest import files
from worldmodel.training.cli import run
from worldmodel.training.loading import load_run


def altered(tree: Any, place: str, value: Any) -> Any:
    """A copy of nested dicts with another value at a dotted place; None takes it away."""
    name, _, rest = place.partition(".")
    others = {key: x for key, x in tree.items() if key != name}
    if rest:
        return others | {name: altered(tree[name], rest, value)}
    return others if value is None else others | {name: value}


@pytest.mark.parametrize("command", ["report", "imagine"])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("data.bach", 3, "config.yaml: no option data.bach: did you mean data.batch?"),
        ("model.old", 1, "config.yaml: no option model.old"),
        ("model.world_model.init_args.ensemble", 5, "config.yaml: model.world_model has no option ensemble"),
        ("model.world_model.init_args.encoder", None, "model.world_model lacks a setting that has no default: encoder"),
        ("model.world_model", None, "config.yaml: the following arguments are required: model.world_model"),
        ("model.world_model.class_path", "worldmodel.model.old.Old", "model.world_model: worldmodel.model has no old"),
        ("model", None, "config.yaml has no settings of model"),
        ("data", [1], "config.yaml has no settings of data"),
    ],
)
def test_config_of_another_version(
    finished: Path, complaint: Any, command: str, place: str, value: Any, message: str
) -> None:
    config = finished / "config.yaml"
    config.write_text(yaml.safe_dump(altered(yaml.safe_load(config.read_text()), place, value)))
    more = ["--out", str(finished / "dream.mp4")] if command == "imagine" else []
    assert message in complaint([command, "--run", str(finished), *more])


def test_settings_that_were_not_there_yet_have_their_defaults(finished: Path) -> None:
    config = finished / "config.yaml"
    held = altered(altered(yaml.safe_load(config.read_text()), "data.quality", None), "seed", None)
    config.write_text(yaml.safe_dump(held))
    run(["imagine", "--run", str(finished), "--out", str(finished / "dream.png"), "--horizon", "2"])
    assert (finished / "dream.png").read_bytes().startswith(b"\x89PNG")
    _, data = load_run(finished)
    data.close()
    assert (data.settings["quality"], data.seed) == ("fast", 0)


@pytest.mark.parametrize("text", ["model: [", "- 3", ""])
def test_config_that_is_none(finished: Path, complaint: Any, text: str) -> None:
    (finished / "config.yaml").write_text(text)
    assert "config.yaml " in complaint(["report", "--run", str(finished)])


@pytest.mark.parametrize(("command", "option"), [("report", "--checkpoint"), ("validate", "--checkpoint")])
def test_the_way_out_is_an_option_that_there_is(finished: Path, complaint: Any, command: str, option: str) -> None:
    (finished / "checkpoints" / "best.ckpt").unlink()
    last = finished / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert f"best.ckpt may serve with {option}" in complaint([command, "--run", str(finished)])
    last.unlink()
    assert f"name another with {option}" in complaint([command, "--run", str(finished)])


def test_weights_alone_are_nothing_to_train_on(finished: Path, complaint: Any) -> None:
    (finished / "checkpoints" / "last.ckpt").unlink()
    before = files(finished)
    error = complaint(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    assert "holds no last.ckpt to go on from, only weights: begin another run with --config" in error
    assert files(finished) == before
