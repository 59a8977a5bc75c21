"""Settings that cannot be: each one line that says where it is, what it is, and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.ranges import Range
from tests.training.conftest import words

WORLD, CONTROL = "model.world_model", "model.actor_critic"
TUNED = {"class_path": "worldmodel.control.uncertainty_weight.TunedWeight", "init_args": {"rate": -1}}
WRONG: list[tuple[str, Any, str]] = [  # (setting, value, what is said)
    ("seed", -1, "must be at least 0 and at most 4294967295"),
    ("seed", 2**32, "it is 4294967296 and must be"),
    ("seed", 1.5, "expected int"),
    ("data.action_repeat", 0, "must be at least 1"),
    ("data.num_envs", 0, "must be at least 1 and at most 4096"),
    ("data.num_envs", 10**9, "at most 4096"),
    ("data.size", 0, "at least 1 and at most 4096"),
    ("data.size", -64, "at least 1"),
    ("data.size", 10**6, "at most 4096"),
    ("data.size", 7, "data.size is 7, which the model does not take"),
    ("data.size", 24, "images of 24x24 do not divide into 16x16"),
    ("data.episode_frames", 0, "at least 1"),
    ("data.capacity", 1, "at least 2"),
    ("data.capacity", 5, "data.length is 8 and data.capacity 5"),
    ("data.batch", 0, "at least 1"),
    ("data.batch", 10**12, "take 24,576,000 GB, and this machine has"),
    ("data.length", 1, "at least 2"),
    ("data.length", 2000, "the replay never holds a sequence that long"),
    ("schedule.rounds", 0, "at least 1"),
    ("schedule.max_minutes", -1, "above 0"),
    ("schedule.max_minutes", ".nan", "above 0"),
    ("schedule.prefill", -5, "at least 0"),
    ("schedule.prefill", 2000, "a replay of capacity 1000 never holds the 2000 records"),
    ("schedule.steps", 0, "at least 1"),
    ("schedule.updates", -1, "at least 1"),
    ("schedule.evaluate_every", 0, "at least 1"),
    ("schedule.evaluate_minutes", 0, "above 0"),
    ("schedule.evaluation_episodes", 0, "at least 1"),
    ("schedule.checkpoint_every", 0, "at least 1"),
    ("schedule.console_every", 0, "at least 1"),
    ("optimizer.learning_rate", -1, "it is -1.0 and must be at least 0 and at most 1"),
    ("optimizer.actor_learning_rate", ".inf", "at least 0"),
    ("optimizer.critic_learning_rate", 1000, "at most 1"),
    ("optimizer.adam_epsilon", 0, "above 0"),
    ("optimizer.clip", "[100, -1, 10]", "optimizer.clip[1]: it is -1.0 and must be above 0"),
    ("optimizer.warmup", -1, "at least 0"),
    ("optimizer.decay", 2, "at least 0 and at most 1"),
    ("optimizer.max_skipped", 0, "at least 1"),
    ("fabric.devices", 0, "fabric"),
    ("fabric.devices", -2, "fabric"),
    ("fabric.devices", "many", "fabric"),
    ("fabric.num_nodes", 0, "at least 1"),
    ("fabric.accelerator", "tpu", "fabric"),
    ("fabric.accelerator", "mps", "fabric"),
    ("fabric.accelerator", "gpu", "fabric"),
    ("fabric.strategy", "ddpp", "fabric"),
    ("fabric.precision", "bf16-true", "fabric.precision: expected"),
    ("fabric.precision", "16-true", "fabric.precision: expected"),
    ("fabric.precision", "64-true", "fabric.precision: expected"),
    (f"{WORLD}.deter", 0, "model.world_model.deter: it is 0 and must be at least 1 and at most 65536"),
    (f"{WORLD}.width", -1, "at least 1"),
    (f"{WORLD}.width", 10**8, "at most 65536"),
    (f"{WORLD}.reward.init_args.layers", -1, "at least 0"),
    (f"{WORLD}.reward.init_args.bins", 4, "bins must be odd"),
    (f"{WORLD}.reward.init_args.limit", 0, "above 0"),
    (f"{WORLD}.free_nats", -1, "at least 0"),
    (f"{WORLD}.decode_fraction", 0, "above 0 and at most 1"),
    (f"{WORLD}.encoder.init_args.patch", 0, "at least 1"),
    (f"{WORLD}.encoder.init_args.channels", "[0, 8]", "channels[0]: it is 0"),
    (f"{WORLD}.encoder.init_args.size", 13, "multiple of twice the patch"),
    (f"{WORLD}.decoder.init_args.size", -16, "at least 1"),
    (f"{WORLD}.latents.init_args.unimix", 2, "at least 0 and below 1"),
    (f"{WORLD}.latents.init_args.classes", -1, "at least 1"),
    (f"{WORLD}.transition.init_args.members", 0, "at least 1"),
    (f"{WORLD}.transition.init_args.width", 0, "at least 1"),
    (f"{CONTROL}.width", 0, "at least 1"),
    (f"{CONTROL}.layers", -1, "at least 0"),
    (f"{CONTROL}.horizon", 0, "at least 1"),
    (f"{CONTROL}.starts", 0, "at least 1"),
    (f"{CONTROL}.discount", 2, "above 0 and at most 1"),
    (f"{CONTROL}.discount", -1, "above 0 and at most 1"),
    (f"{CONTROL}.critic.init_args.lam", 1.5, "at least 0 and at most 1"),
    (f"{CONTROL}.objective.init_args.entropy", -1, "at least 0"),
    (f"{CONTROL}.critic.init_args.target_rate", 0, "above 0 and at most 1"),
    ("average.rate", 0, "above 0 and at most 1"),
    ("schedule.calibration_episodes", -1, "at least 0"),
    (f"{CONTROL}.uncertainty_weight", ".nan", "finite"),
    (f"{CONTROL}.uncertainty_weight", TUNED, "uncertainty_weight.rate: it is -1.0 and must be above 0"),
]


@pytest.mark.parametrize(("setting", "value", "message"), WRONG, ids=[f"{x[0]}={x[1]}"[-40:] for x in WRONG])
def test_a_setting_out_of_range_is_one_line(
    tmp_path: Path, complaint: Any, setting: str, value: Any, message: str
) -> None:
    if setting == "fabric.accelerator" and value == "gpu" and torch.cuda.is_available():
        pytest.skip("there is one")
    for owner in (WORLD, CONTROL):
        if setting.startswith(owner):
            setting = setting.replace(owner, f"{owner}.init_args", 1)
    assert message in complaint(words(tmp_path / "run", f"--{setting}={value}"))
    assert not (tmp_path / "run" / "config.yaml").exists() or setting == "schedule.prefill"


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "said"),
    [
        (Range(least=1), [1, 2], [0, -1, float("nan"), float("inf")], "at least 1"),
        (Range(above=0, most=1), [0.1, 1], [0, 1.1], "above 0 and at most 1"),
        (Range(least=0, below=1), [0, 0.99], [1, -0.1], "at least 0 and below 1"),
        (Range(), [-1e9], [float("-inf")], "finite"),
    ],
)
def test_limits(limits: Range, inside: list[float], outside: list[float], said: str) -> None:
    assert all(map(limits.holds, inside)) and not any(map(limits.holds, outside)) and repr(limits) == said
