"""``import worldmodel as wm``: what it offers, what it costs, and that the README's Python runs as it stands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worldmodel as wm
from worldmodel.experience.toy import PointReach

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_importing_it_loads_next_to_nothing() -> None:
    code = """if True:
        import sys
        before = {name.partition(".")[0] for name in sys.modules}
        import worldmodel as wm
        wm.UserError, dir(wm)
        new = {name.partition(".")[0] for name in sys.modules} - before
        print(sorted(new - {"worldmodel", *sys.stdlib_module_names}))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", [name for name in wm.__all__ if name != "__version__"])
def test_every_name_is_there(name: str) -> None:
    assert name in dir(wm) and getattr(wm, name) is getattr(wm, name)


def test_type_checkers_are_told_the_same() -> None:
    block = next(x for x in ast.parse(Path(wm.__file__).read_text()).body if isinstance(x, ast.If))
    told = {
        name.asname: f"{node.module}.{name.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    given = {
        name: f"worldmodel.{module}.{called or name}"
        for name, (module, _, called) in ((name, where.partition(":")) for name, where in wm._WHERE.items())
    }
    assert told == given


@pytest.mark.parametrize(("name", "near"), [("WorldModl", "WorldModel"), ("make_environment", "make_env")])
def test_near_names(name: str, near: str) -> None:
    with pytest.raises(AttributeError, match=f"worldmodel has no {name}: did you mean .*{near}"):
        getattr(wm, name)
    assert not hasattr(wm, "xyzxyz")


def test_a_planner_and_an_environment() -> None:
    assert wm.planners.CEM(horizon=3).horizon == 3
    env = wm.make_env("worldmodel.experience.toy:PointReach", size=16)
    image, _ = env.reset(seed=0)
    assert image.shape == (3, 16, 16) and isinstance(env.unwrapped, PointReach)


def test_a_run_from_python(tmp_path: Path) -> None:
    short = {"rounds": 1, "prefill": 60, "steps": 20, "updates": 2, "evaluation_episodes": 1}
    tiny = ROOT / "tests/training/tiny.yaml"
    run = wm.train(tiny, run=tmp_path / "run", schedule=short, seed=3)
    run = wm.train(run=run, schedule={"rounds": 2})  # goes on
    agent, data = wm.load(run)
    assert isinstance(agent, wm.Agent) and agent.updates in (2, 4) and data.seed == 3
    with pytest.raises(wm.UserError, match=r"no option data.bach: did you mean data.batch\?"):
        wm.train(tiny, run=tmp_path / "other", data={"bach": 3})


def test_there_is_something_to_run() -> None:
    assert len(SNIPPETS) >= 2 and all("worldmodel" in text or "gymnasium" in text for text in SNIPPETS)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snippet: str) -> None:
    """In a folder where, as at the repository's root, ``notebooks/run`` is."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/run").symlink_to(ROOT / "notebooks/run")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(snippet, "README.md", "exec"), names)
    if "make" in names:  # a task's factory, which the command line calls
        env = names["make"]()
        image, _ = env.reset(seed=0)
        assert image.dtype == np.uint8 and image.shape[2] == 3
