"""The uncertainty study: what each of its jobs needs is there before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.uncertainty import page
from experiments.uncertainty.aims import aims, aims_trained
from experiments.uncertainty.by_task import TRAINED, trust_by_task
from experiments.uncertainty.expected import Dreams, action_shuffle, expected
from experiments.uncertainty.run import stages
from experiments.uncertainty.summary import default_kind, summary, with_default
from tests import tiny
from tests.insight.test_trust import H, dreams
from worldmodel.insight.clues import Judged


def test_each_stage_leaves_what_the_next_one_reads(tmp_path: Path) -> None:
    data, models, asked = stages(tmp_path)
    everything = [job.done for stage in (data, models, asked) for job in stage]
    assert len(set(everything)) == len(everything)  # no file is written by two jobs
    assert {job.done.parent for job in models} <= {job.done.parent for job in data}
    needed = {(job.command[4], job.command[5], job.command[6]) for job in asked}  # task, kind, seed
    assert needed == {(job.command[4], job.command[5], job.command[6]) for job in models}


def test_a_part_of_the_study_brings_what_it_needs(tmp_path: Path) -> None:
    data, models, asked = stages(tmp_path, "measure point_swamp shared")
    assert [job.name for job in data] == ["data point_swamp"]
    assert [job.name for job in models] == ["train point_swamp shared 0", "train point_swamp shared 1"]
    assert [job.name for job in asked] == ["measure point_swamp shared 0", "measure point_swamp shared 1"]


def rows(transition: str, values: tuple[float | None, ...], **given: Any) -> list[dict[str, Any]]:
    base = {"task": "toy", "transition": transition, "measure": "epistemic", "case": "hole_states", "horizon": 1}
    return [base | given | {"seed": seed, "value": value} for seed, value in enumerate(values)]


def test_the_summary_holds_medians_and_says_what_is_missing() -> None:
    kind = default_kind()
    told = rows(kind, (0.7, 0.8, 1.0), metric="auroc") + rows("single", (0.3,), metric="auroc", measure="entropy")
    told += rows("single", (10.0, 10.0), metric="gap", measure="plain", case="actor")
    told += rows("single", (1.0, 2.0), metric="gap", measure="cautious", case="actor")
    told += rows("single", (20.0, 20.0), metric="imagined", measure="plain", case="actor")
    told += rows(kind, (0.6, 0.9, 0.8), metric="rank_correlation", measure="expected", case="pixels")
    found = summary(with_default(with_default(told)))
    assert found["shipped_default"] == kind
    assert found["auroc_hole"] == {kind: 0.8, "single": 0.3, "default": 0.8}
    assert found["exploitation_cut"] == {kind: None, "single": 0.85, "default": None}
    assert found["exploitation_cut_unusual"] == {kind: None, "single": None, "default": None}
    assert found["rank_pixels"]["default"]["expected"]["1"] == 0.8
    assert found["rank_pixels"]["default"]["expected"]["5"] is None and found["cost_ratio"]["single"] is None


def test_aims_are_reached_or_not() -> None:
    kind = default_kind()
    told = rows(kind, (0.96, 0.98), metric="auroc") + rows(kind, (0.5, 0.5), metric="auroc", measure="novelty")
    told += rows("single_softmax", (0.8, 0.8), metric="auroc", measure="entropy")
    told += [
        row
        for step in range(1, 16)
        for row in rows(
            kind, (0.9 - 0.02 * step,), metric="rank_correlation", measure="expected", case="pixels", horizon=step
        )
    ]
    told += [row for x in (("true", 9.0), ("trusted", 6.0), ("better", 0.89)) for row in trust(kind, *x)]
    for who, manners in {"actor": (0.1, 10, 10), "planner": (5, 10, 4)}.items():
        for manner, share in (("plain", 1.0), ("cautious", 0.9 if who == "actor" else 1.5)):
            for metric, value in zip(("gap", "imagined", "real_return"), manners, strict=True):
                value *= share if metric == "real_return" else 1 - (manner == "cautious") * 0.8
                told += rows(kind, (value,), metric=metric, measure=manner, case=who)
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in aims(told).splitlines()[2:]]
    lines = {aim: (figure, reached) for aim, figure, reached in found}
    assert lines["hole of states: AUROC 0.95 on each task, by epistemic"] == ("toy 0.97", "yes")
    assert lines["hole of states: AUROC 0.95 on each task, by novelty"] == ("toy 0.50", "no")
    above = "and 0.2 above the entropy of one member with softmax latents, by epistemic"
    assert lines[above] == ("toy +0.17", "no")
    ranks = "expected and true error of pixels: rank correlation 0.7 at each step from 1 to 15"
    assert lines[ranks] == ("10 of 15 steps; least 0.60, at 15", "no")
    assert lines["up to the trust horizon 90% of dreams are better than the last picture"] == ("toy 89%", "no")
    assert lines["it is at least two thirds of the true one"] == ("toy 0.67", "yes")
    caution = "caution by the uncertainty, where a policy is exploited: the gap shrinks by 70%"
    at = [line[0] for line in found].index(caution)
    assert [line[1:] for line in found[at : at + 3]] == [
        ["toy planner +80%", "yes"],
        ["toy planner +50%", "yes"],
        ["toy actor -10%", "no"],
    ]
    assert lines["an update takes at most 1.10 of a single member's"][1] == "no"  # nobody measured it


def trust(kind: str, which: str, value: float) -> list[dict[str, Any]]:
    return rows(kind, (value,), metric="trust_horizon", measure="expected", case=which)


def test_runs_that_were_trained_have_lines_of_their_own() -> None:
    told = trust(default_kind(), "trusted", 6.0) + [row | {"task": "walker"} for row in trust(TRAINED, "trusted", 9.0)]
    assert [line.split("|")[1].strip() for line in trust_by_task(told, TRAINED).splitlines()[2:]] == ["walker"]
    assert "| 9.0 |" in trust_by_task(told, TRAINED) and "| 6.0 |" in trust_by_task(told, default_kind())


def test_what_caution_costs_a_trained_run() -> None:
    told = [row | {"task": "walker"} for row in rows(TRAINED, (0.97,), metric="share_of_plain", measure="cautious")]
    told += rows(TRAINED, (None,), metric="share_of_plain", measure="cautious")
    last = [[cell.strip() for cell in line.split("|")[1:-1]] for line in aims_trained(told).splitlines()[-2:]]
    assert [line[1:] for line in last] == [["walker -3.0%", "yes"], ["", "no"]]  # nobody played with unusual error


def test_rows_of_jobs_take_the_place_of_those_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, new = rows("single", (0.1, 0.2), metric="auroc"), rows("single", (0.9,), metric="auroc")
    monkeypatch.setattr(page, "DATA", tmp_path / "rows.json")
    (tmp_path / "rows.json").write_text(json.dumps(kept))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "measure_single_0.json").write_text(json.dumps(new))
    assert [row["value"] for row in page.gather(tmp_path)] == [0.9, 0.2]


def test_a_calibration_is_tested_on_other_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.uncertainty.expected.RESAMPLES", 20)
    clues, errors, episode = dreams(np.random.default_rng(0), 600)
    found = {
        (x["case"], x["metric"], x["horizon"]): x["value"] for x in expected(Dreams(Judged(clues, errors), episode))
    }
    for step in range(1, H + 1):
        low, middle, high = (found["pixels", f"rank_correlation{end}", step] for end in ("_low", "", "_high"))
        assert low < middle < high and 0.7 < middle < 0.95
        assert 0.85 < found["pixels", "coverage_0.9", step] < 0.95 and found["pixels", "auroc_worst", step] > 0.9
    assert found["better", "trust_horizon", None] > 0.8


def test_a_model_that_ignores_actions_is_as_wrong_with_any() -> None:
    model = tiny.world_model()
    with torch.no_grad():
        model.rssm.from_action.weight.zero_()
    found = action_shuffle(model, tiny.batch(4, 8))
    assert {row["horizon"] for row in found} == {1, 2, 3} and all(row["value"] == 1 for row in found)
