from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from worldmodel.errors import UserError
from worldmodel.experience import vector, worker
from worldmodel.experience.vector import Environments, EnvStep, InProcess, Workers
from worldmodel.experience.worker import WorkerHandle
from worldmodel.types import ActionSpec

TOY = "worldmodel.experience.toy:PointReach"
BROKEN = "tests.experience.broken"


def advance(environments: Environments, steps: int, seed: int = 0) -> list[EnvStep]:
    rng = np.random.default_rng(seed)
    shape = (environments.num_envs, environments.action.size)
    return [environments.step(rng.uniform(-1, 1, shape).astype(np.float32)) for _ in range(steps)]


def assert_equal(left: list[EnvStep], right: list[EnvStep]) -> None:
    for one, two in zip(left, right, strict=True):
        for name in EnvStep._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)


def test_next_step_reset() -> None:
    environments = InProcess(TOY, 2, seed=1, size=16)
    assert environments.image_shape == (3, 16, 16)
    assert environments.action == ActionSpec(2, discrete=False)
    steps = advance(environments, 67)
    assert [i for i, s in enumerate(steps) if s.is_first[0]] == [0, 33, 66]
    assert [i for i, s in enumerate(steps) if s.is_last[1]] == [32, 65]
    assert not any(s.is_terminal.any() or s.is_cut.any() for s in steps)
    assert steps[33].reward[0] == 0
    assert steps[33].frames[0] == 0
    assert (steps[0].image[0] != steps[0].image[1]).any()
    assert (steps[0].image[0] != steps[33].image[0]).any()


def test_terminal_and_one_hot() -> None:
    environments = InProcess(f"{BROKEN}:Counter", 1, size=8)
    assert [bool(s.is_terminal[0]) for s in advance(environments, 6)] == [False] * 5 + [True]
    discrete = InProcess("worldmodel.experience.toy:DiscretePointReach", 1)
    assert discrete.action == ActionSpec(5, discrete=True)
    still = discrete.step(np.eye(5, dtype=np.float32)[[0]])
    np.testing.assert_array_equal(still.image, discrete.step(np.eye(5, dtype=np.float32)[[0]]).image)
    assert (still.image != discrete.step(np.eye(5, dtype=np.float32)[[2]]).image).any()


def test_workers_equal_in_process_and_resume() -> None:
    local, workers = (
        InProcess(TOY, 2, seed=4, size=16),
        Workers(TOY, 2, seed=4, size=16),
    )
    assert_equal(advance(local, 40), advance(workers, 40))
    resumed = InProcess(TOY, 2, seed=4, size=16)
    resumed.load_state_dict(workers.state_dict())
    expected = advance(local, 40, seed=1)
    assert_equal(expected, advance(resumed, 40, seed=1))
    assert_equal(expected, advance(workers, 40, seed=1))
    workers.close()


@pytest.mark.parametrize("task", ["reacher_easy", "cartpole_swingup"])
def test_resume_is_exact_on_physics(task: str) -> None:
    straight, saved = (
        InProcess(task, 1, seed=2, size=16),
        InProcess(task, 1, seed=2, size=16),
    )
    advance(straight, 20)
    advance(saved, 20)
    resumed = InProcess(task, 1, seed=2, size=16)
    resumed.load_state_dict(saved.state_dict())
    assert_equal(advance(straight, 10, seed=1), advance(resumed, 10, seed=1))


def test_restart_gives_the_same_episodes() -> None:
    environments = InProcess(TOY, 2, size=16)
    before = advance(environments, 40)
    environments.restart()
    assert_equal(before, advance(environments, 40))


def test_a_killed_worker_is_restarted_and_its_episode_cut() -> None:
    workers = Workers(TOY, 2, size=16)
    last = advance(workers, 5)[-1]
    os.kill(workers.pids()[1], signal.SIGKILL)
    with pytest.warns(UserWarning, match="its episode is cut"):
        (cut,) = advance(workers, 1)
    assert cut.is_last.tolist() == cut.is_cut.tolist() == [False, True]
    assert not cut.is_terminal.any()
    assert cut.reward[1] == 0
    np.testing.assert_array_equal(cut.image[1], last.image[1])
    following = advance(workers, 2)
    assert following[0].is_first.tolist() == [False, True]
    assert not following[1].is_first.any()
    workers.close()


def test_a_worker_that_hangs_is_restarted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(f"{BROKEN}:Hangs", 1, size=16)
    advance(workers, 1)
    first = workers.pids()[0]
    monkeypatch.setattr(worker, "PATIENCE", 20.0)  # for the one that starts again
    monkeypatch.setattr(workers._handles[0]._pipe, "poll", lambda seconds: False)
    with pytest.warns(UserWarning, match=r"died \(no answer for 20 s\); its episode is cut"):
        (cut,) = advance(workers, 1)
    assert cut.is_cut[0] and workers.pids()[0] != first
    assert not os.path.exists(f"/proc/{first}")
    assert advance(workers, 1)[0].is_first[0]
    workers.close()


def test_a_worker_that_keeps_dying_is_an_error() -> None:
    workers = Workers(f"{BROKEN}:Dies", 1, size=16)
    with (
        pytest.warns(UserWarning),
        pytest.raises(UserError, match=r"died 3 times without progress \(exit code 7\)"),
    ):
        advance(workers, 1)
    workers.close()


def test_a_worker_that_dies_as_its_episode_is_played_again_is_an_error() -> None:
    workers = Workers(f"{BROKEN}:Dies", 1, size=16)
    nothing = np.zeros((0, workers.action.size), np.float32)
    with pytest.raises(UserError, match=r"environment 0 died \(exit code 7\) as its episode was played again"):
        workers.load_state_dict({"episodes": [1], "running": [True], "actions": [nothing]})
    workers.close()


def test_errors_cross_the_pipe() -> None:
    with pytest.raises(UserError, match="cartpole_swingup"):
        Workers("cartpole_swingpu", 2)
    workers = Workers(f"{BROKEN}:NanReward", 1)
    with pytest.raises(UserError, match="reward that is not finite at step 1"):
        advance(workers, 2)
    workers.close()
    workers = Workers(f"{BROKEN}:Raises", 1)
    with pytest.raises(UserError, match="episode 1, step 1: step raised ZeroDivisionError: a bug of its own"):
        advance(workers, 2)
    workers.close()


def test_environments_that_are_not_active_stay() -> None:
    environments, all_of_them = (InProcess(TOY, 2, size=16) for _ in range(2))
    before = advance(environments, 5)[-1]
    advance(all_of_them, 5)
    action = np.ones((2, 2), np.float32)
    part, whole = environments.step(action, [True, False]), all_of_them.step(action)
    np.testing.assert_array_equal(part.image[0], whole.image[0])
    np.testing.assert_array_equal(part.image[1], before.image[1])
    assert part.reward[1] == part.frames[1] == 0 and not part.is_last[1]
    assert part.frames[0] == whole.frames[0] and part.reward[0] == whole.reward[0]
    np.testing.assert_array_equal(environments.step(action).image[1], whole.image[1])  # its turn, a step later


def test_workers_take_the_cores_that_the_process_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector, "cores", lambda: [3, 5, 7])
    began: list[int | None] = []

    class Stub(WorkerHandle):
        def __init__(self, settings: dict, core: int | None) -> None:
            began.append(core)
            super().__init__(settings, None)

    monkeypatch.setattr(vector, "WorkerHandle", Stub)
    Workers(TOY, 2, size=16, first_core=2).close()
    assert began == [7, 3]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds nothing")
def test_cores_are_noted_before_threads_are_bound() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from worldmodel.experience.cores import cores, remember\n"
        "began = sorted(os.sched_getaffinity(0)); remember()\n"
        "os.sched_setaffinity(0, {began[0]})\n"  # as OpenMP does
        "child = 'import os; from worldmodel.experience.cores import remember; remember(); '\n"
        "child += 'print(sorted(os.sched_getaffinity(0)))'\n"
        "out = subprocess.run([sys.executable, '-c', child], capture_output=True, text=True, check=True).stdout\n"
        "print(cores() == began, out.strip() == str(began))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True True"


def test_bad_input() -> None:
    environments = InProcess(TOY, 2)
    with pytest.raises(UserError, match="not finite"):
        environments.step(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="action is"):
        environments.step(np.zeros((1, 2), np.float32))
    with pytest.raises(UserError, match="keep num_envs"):
        InProcess(TOY, 1).load_state_dict(environments.state_dict())
    with pytest.raises(UserError, match="num_envs is 0"):
        InProcess(TOY, 0)


def test_workers_never_import_torch() -> None:
    code = (
        "import sys, worldmodel.experience.worker as worker\n"
        "handle = worker.LocalEnv({'task': 'cartpole_balance'})\n"
        "handle.send(worker.Reset(0)); handle.receive()\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
