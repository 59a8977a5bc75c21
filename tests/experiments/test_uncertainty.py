"""The uncertainty study: what each of its jobs needs is there before it begins."""

from __future__ import annotations

from pathlib import Path

from experiments.uncertainty.run import stages


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
