"""Jobs that take hours, on Ray: each is a command that resumes itself, and leaves a file behind when it is done.

On one machine Ray is started here; ``address`` joins a cluster that shares the folders. A job whose worker dies is
started again, and goes on where it was; so does a runner that was killed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from experiments.processes import own_cores, stay
from worldmodel.errors import UserError

ROOT = Path(__file__).parents[1]
_RESTARTS = 5  # of a job whose worker died


class Job(NamedTuple):
    """One command.

    Args:
        name: what it is called where progress is printed.
        command: what follows ``python``; calling it again resumes it.
        done: the file that holds what it found, written last; it says that the job need not run.
        log: what it prints is appended here.
        cores: how many it keeps busy.
    """

    name: str
    command: tuple[str, ...]
    done: Path
    log: Path
    cores: int = 1


def run_jobs(
    jobs: list[Job],
    address: str | None = None,
    progress: Callable[[Job], float] | None = None,
    every: float = 60.0,
) -> list[str]:
    """Do the jobs that are not done, as many at once as there are cores.

    Args:
        jobs: what there is to do; those that are done are left alone.
        address: of a Ray cluster; one is started on this machine if None.
        progress: the share of a job that is done, for the estimate of the time that is left.
        every: seconds between two lines of progress.

    Returns:
        The names of the jobs that failed.

    Raises:
        UserError: Ray is not installed, or the address cannot be reached.
    """
    left = [job for job in jobs if not job.done.exists()]
    print(f"{len(jobs)} runs: {len(jobs) - len(left)} are done, {len(left)} are left", flush=True)
    if not left:
        return []
    ray = _connect(address)
    try:
        remote = ray.remote(max_retries=_RESTARTS)(_work)
        waiting = {remote.options(num_cpus=job.cores, name=job.name).remote(job): job for job in left}
        return _await(ray, waiting, progress or (lambda job: 0.0), every)
    finally:
        ray.shutdown()


def exits(name: str, work: Callable[[], int]) -> NoReturn:
    """End the process of a command: 1 if some of its jobs failed, 2 and one line on a UserError."""
    try:
        sys.exit(min(1, work()))
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def _connect(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # or whatever else runs on the machine starves the jobs
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as cause:
        raise UserError("Ray is not installed, and runs experiments: pip install 'worldmodel[suite]'") from cause
    here = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    _reach(address)
    own = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", runtime_env={"env_vars": here}, logging_level="error", log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as cause:
        reason = " ".join(str(cause).split())[:120]
        raise UserError(f"no Ray cluster can be reached at {address or 'this machine'}: {reason}") from cause
    return ray


def _reach(address: str | None) -> None:
    """Ray itself waits for many minutes where nobody answers."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as cause:
        raise UserError(f"no Ray cluster can be reached at {address}: {cause}") from cause


def _await(ray: Any, waiting: dict[Any, Job], progress: Callable[[Job], float], every: float) -> list[str]:
    started, before = time.monotonic(), {job.name: progress(job) for job in waiting.values()}
    failed, finished, said = [], 0, -every
    while waiting:
        ready, _ = ray.wait(list(waiting), timeout=min(every, 5.0))
        for reference in ready:
            job = waiting.pop(reference)
            finished += 1
            try:
                reason = ray.get(reference)
            except ray.exceptions.RayError as cause:
                reason = " ".join(str(cause).split())[:120]
            if reason:
                failed.append(job.name)
            print(f"{job.name} {f'failed ({reason}): see {job.log}' if reason else 'is done'}", flush=True)
        now = time.monotonic() - started
        if waiting and now - said >= every:
            said = now
            shares = {job.name: progress(job) for job in waiting.values()}
            print(_line(shares, before, finished, now), flush=True)
    return failed


def _line(shares: dict[str, float], before: dict[str, float], finished: int, seconds: float) -> str:
    """What runs, what is left, and for how long if the jobs to come take as long as those so far."""
    running = {name: share for name, share in shares.items() if share > before[name]}
    made = finished + sum(share - before[name] for name, share in running.items())
    left = sum(1 - share for share in shares.values())
    when = f", about {left / made * seconds / 60:.0f} minutes to go" if made > 0 else ""
    parts = [f"{name} {share:.0%}" for name, share in running.items()]
    return f"{finished} done, {len(shares)} left ({', '.join(parts) or 'starting'}){when}"


def _work(job: Job) -> str | None:
    """Run a job's command on cores of its own; the reason if it failed."""
    if job.done.exists():
        return None
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with own_cores(job.cores) as cores, job.log.open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": str(len(cores)), "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, *job.command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(stay, cores),
        )
    if ended.returncode:
        return f"exit code {ended.returncode}"
    return None if job.done.exists() else "it left no result"
