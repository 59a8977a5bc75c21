"""A newcomer's hour, walked by a script: the wheel in an empty environment and folder, and the README's commands.

``python -m tests.journey [--out FOLDER] [--minutes 2] [--site PYTHON]`` prints a line for each step, then a JSON
object, and exits with 1 where something was wrong. What every command printed is in ``FOLDER/printed``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.journey.step import Step, Walked, walk
from tests.test_wheel import wheel

_OWN = """
import gymnasium


def make() -> gymnasium.Env:
    return gymnasium.wrappers.AddRenderObservation(gymnasium.make("Acrobot-v1", render_mode="rgb_array"))
"""
# of others' environments a look is enough: that they are found, drawn, collected, learned from and evaluated
_SHORT = (
    "--schedule.rounds 2 --schedule.prefill 200 --schedule.updates 2 --schedule.evaluation_episodes 1 "
    "--schedule.evaluate_every 2 --schedule.calibration_episodes 0 --data.episode_frames 200 --data.num_envs 1"
)
_OTHERS = {
    "a task of one's own": "mytask:make",
    "Pong": "ALE/Pong-v5",
    "MiniGrid": "MiniGrid-Empty-5x5-v0",
    "CarRacing": "CarRacing-v3",
    "Hopper by picture": "Hopper-v5",
}


def steps(minutes: float) -> Iterator[Step]:
    """All of them, in order."""
    run, limit = "runs/balance", 600 + 120 * minutes
    timed = f"--schedule.rounds null --schedule.max_minutes {minutes} --optimizer.decay 1 --schedule.evaluate_every 20"
    yield Step("its version", "--version", (r"worldmodel \d+\.\d+",))
    yield Step("which tasks there are", "tasks", ("cartpole_balance", "walker_walk"))
    yield Step("a typo", "fit --task walker_wlak", ("did you mean walker_walk",), code=2)
    yield Step(
        "train, and Ctrl-C",
        f"fit --task cartpole_balance --run {run} {timed}",
        (
            "^worldmodel",
            "task +cartpole_balance",
            "folder +runs/balance, new",
            "frames",
            "stopped after update",
            "goes on",
        ),
        (f"{run}/config.yaml", f"{run}/checkpoints/last.ckpt"),
        code=130,
        interrupt="^frames",
        limit=limit,
    )
    yield Step(
        "go on, and finish",
        f"fit --run {run}",
        ("which goes on", r"resuming from update [\d,]+", "frames", "finished: return", "next: worldmodel report"),
        (f"{run}/checkpoints/best.ckpt", f"{run}/evaluations.jsonl", f"{run}/calibration.json", f"{run}/videos/*.mp4"),
        limit=limit,
    )
    yield Step("it is finished", f"fit --run {run}", ("is finished",))
    yield Step("validate", f"validate --run {run}", (r"return [\d.]+ \+- ",), (f"{run}/validations.jsonl",))
    yield Step("report", f"report --run {run}", (), (f"{run}/report.html",))
    yield Step("imagine", f"imagine --run {run} --out dream.mp4", (), ("dream.mp4",))
    yield Step("export", f"export --run {run} --out small --half true", (), ("small/config.yaml",))
    yield Step(
        "play", f"play --run {run} --port 0", ("the player is at",), interrupt="the player is at", meanwhile=_visit
    )
    for says, task in _OTHERS.items():
        name = f"runs/{says.split()[0].lower()}"
        printed, left = ("finished: return", "next:"), (f"{name}/checkpoints/last.ckpt",)
        yield Step(says, f"fit --task {task} --run {name} {_SHORT}", printed, left)


def _visit(line: str) -> str:
    """Open the page, in Chromium if there is one."""
    address = line.split()[-1]
    with urllib.request.urlopen(address, timeout=30) as page:
        if b"<html" not in page.read().lower():
            return "the player serves no page"
    chromium = shutil.which("chromium")
    if chromium is None:
        return ""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("canvas, img", timeout=60_000)  # the page forbids scripts that are strings
        browser.close()
    return ""


def installed(folder: Path, site: Path | None) -> Path:
    """The command of a new environment with the wheel in it, made by uv; or of the one whose Python is ``site``."""
    if site is not None:
        return site.with_name("worldmodel")
    built = wheel(folder)
    python = folder / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", str(folder / "venv")], check=True)
    wanted = f"{built}[environments]"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), wanted]
    subprocess.run(install, check=True)
    return python.with_name("worldmodel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="an empty folder; a temporary one if not given")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training")
    parser.add_argument("--site", type=Path, default=None, help="Python of an environment that has it installed")
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp(prefix="journey-"))
    work, printed = folder / "work", folder / "printed"
    for path in (folder, work, printed):
        path.mkdir(exist_ok=True, parents=True)
    worldmodel = installed(folder, given.site)
    (work / "mytask.py").write_text(_OWN)
    walked: list[Walked] = []
    for number, step in enumerate(steps(given.minutes), start=1):
        done = walk(step, worldmodel, work)
        walked.append(done)
        (printed / f"{number:02d}.txt").write_text(f"$ worldmodel {step.words}\n{done.text}")
        times = [f"{done.seconds:6.1f} s"] + [f"{name} {t:.1f} s" for name, t in _times(done).items()]
        print(f"{step.says:22s} {done.wrong or 'as it should':40s} {', '.join(times)}", flush=True)
    wrong = {done.says: done.wrong for done in walked if done.wrong}
    shown = max((done.first or 0.0) for done in walked)
    print(json.dumps({"steps": len(walked), "wrong": wrong, "slowest_first_line": round(shown, 1), "in": str(folder)}))
    sys.exit(1 if wrong else 0)


def _times(done: Walked) -> dict[str, float]:
    found = {"first line after": done.first, "first update line after": done.updated}
    return {name: value for name, value in found.items() if value is not None}


if __name__ == "__main__":
    main()
