"""PPO in dreams, without any learning: what it writes down, and that its policy comes into the real environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3")

from experiments import dream_ppo

ROOT = Path(__file__).parents[2]


def test_a_policy_is_kept_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, policy = str(ROOT / "notebooks/run"), str(tmp_path / "policy.zip")
    monkeypatch.setattr(sys, "argv", ["dream_ppo", run, "--steps", "0", "--episodes", "1", "--policy", policy])
    dream_ppo.main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (tmp_path / "policy.zip").exists() and said["dream_steps"] == 0
    assert said["real_mean"]["actor"] > 600 > 300 > said["real_mean"]["ppo"] >= 0  # which has learned nothing
