"""What can be known of a command line before torch is loaded: its names, its typos, and the first lines to print."""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import yaml

import worldmodel
from worldmodel.errors import UserError
from worldmodel.experience.cores import cores
from worldmodel.training.configs import KINDS, check_begins, find, is_text, merged, names
from worldmodel.training.console import facts

_PACKAGE = Path(worldmodel.__file__).parent
_GROUPS = {  # whose arguments a section's options are
    "fabric": ("training/fabric.py", "make_fabric"),
    "schedule": ("training/schedule.py", "Schedule"),
    "data": ("training/data.py", "Experience"),
    "optimizer": ("training/optimizer.py", "Optimizer"),
    "average": ("training/average.py", "WeightAverage"),
    "model": ("training/agent.py", "Agent"),
}
_OWN = ("help", "help-all", "config", "print_config", "run", "checkpoint", "rewind", "seed", "trust-code", "offline")


def expand(given: Iterable[str]) -> list[str]:
    """``--task walker_walk`` as ``--config task/walker_walk``, and so for each kind; a policy leaves a run its own.

    A task that is not shipped comes with an action repeat that suits what nobody has tuned. It lies over what is
    shipped and under files that are named later. With ``--offline`` no environment is collected from, and without a
    task there is none.

    Raises:
        UserError: there is no such file, or task; says what has a similar name.
    """
    parts: list[list[str]] = []
    last_shipped, task, offline, has_task = -1, "", False, False
    for flag, value, words in _options(given):
        kind = flag.removeprefix("--")
        has_task = has_task or flag in ("--task", "--data.task") or "task/" in value
        if flag == "--offline":
            if value:
                raise UserError(f"--offline takes no value, and was given {value}")
            offline, words = True, []
        if flag == "--task" and value and f"task/{_plain(value)}" not in names("task") and not Path(value).is_file():
            _check_task(value)
            task, words = value, []
        elif kind in KINDS and kind != "policy":
            if not value or value.startswith("-"):
                known = ", ".join(name.removeprefix(f"{kind}/") for name in names(kind))
                raise UserError(f"{flag} wants a name: {known}")
            words = ["--config", str(find(value, kind))]
        is_own = is_text(value) or Path(value).is_file()  # keeps its place
        if words and (kind in KINDS or (flag in ("--config", "-c") and not is_own)):
            last_shipped = len(parts)
        parts.append(words)
    own = own_task(task) if task else {}
    if offline:
        if not _run_of([word for part in parts for word in part]):
            raise UserError("say which run holds the data: worldmodel fit --offline --run runs/NAME")
        own |= {"num_envs": None} if has_task else {"num_envs": None, "task": None, "action_repeat": 1}
        parts.append(["--data.num_envs", "null"])  # over files of one's own, too
    if own:
        parts.insert(last_shipped + 1, ["--config", yaml.safe_dump({"data": own})])
    return [word for part in parts for word in part]


def function_of(command: str) -> str:
    """The function that a command is, in the module of the same name; ``import`` is a word of Python's own."""
    return {"import": "import_data"}.get(command, command.replace("-", "_"))


def own_task(task: str) -> dict[str, Any]:
    """Settings of ``data`` for a task that is not shipped: two frames an action for dm_control's, one for others."""
    is_suite = ":" not in task and "-" not in task and "/" not in task
    return {"task": task, "action_repeat": 2 if is_suite else 1}


def check(command: str, given: list[str]) -> None:
    """Complain of what is misspelt, or not there, in a moment. A page of help is always given.

    Raises:
        UserError: an option or a file that is not there, a task that nobody knows, or no run where one is wanted.
    """
    options = [(flag, value) for flag, value, _ in _options(given)]
    if any(flag in ("-h", "--help", "--help-all") or flag.endswith(".help") for flag, _ in options):
        return
    known = _known(command)
    sections = {name.partition(".")[0] for name in known if "." in name}
    for flag, value in options:
        name = flag.removeprefix("--").removesuffix("+")
        if not flag.startswith("--"):
            continue
        is_known = name in known | sections or any(name.startswith(f"{other}.") for other in known)
        if not is_known and (near := difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.7)):
            raise UserError(f"no option {name}: did you mean {' or '.join(near)}?")
        if name == "config" and value and not is_text(value):
            find(value)
        if name == "policy" and value and not (command == "imagine" and value == "actor"):
            find(value, "policy")
        if name == "data.task" and value not in ("", "null"):
            _check_task(value)
    _check_run(command, options)


def _check_run(command: str, options: list[tuple[str, str]]) -> None:
    run = next((value for flag, value in options if flag == "--run"), "")
    begins = any(flag in ("--config", "-c") for flag, _ in options)
    if command in ("fit", "validate"):
        check_begins(run, begins)
    elif command not in ("import", "export-data") and run and not (Path(run) / "config.yaml").exists():
        raise UserError(f"{run} holds no run: there is no {Path(run) / 'config.yaml'}")


@contextmanager
def announced(given: list[str]) -> Iterator[list[str]]:
    """Print what a run begins with; give it a folder if it has none, which is gone again if nothing came of it."""
    named = given if "LOCAL_RANK" in os.environ else announce(given)  # the first rank has done so
    made = _run_of(named) if not _run_of(given) else ""
    try:
        yield _logged(named)
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                Path(made).rmdir()


def _run_of(given: list[str]) -> str:
    return next((value for flag, value, _ in _options(given) if flag == "--run"), "")


def _logged(given: list[str]) -> list[str]:
    """The same, with the run's folder for each of Lightning's loggers that is given none."""
    options, run = list(_options(given)), _run_of(given)
    words: list[str] = []
    for flag, value, own in options:
        words += own
        if run and flag.removesuffix("+") == "--fabric.loggers" and value.startswith("lightning."):
            name = "root_dir" if value.startswith("lightning.fabric.") else "save_dir"
            if not any(other == f"--fabric.loggers.{name}" for other, _, _ in options):
                words += [f"--fabric.loggers.{name}", run]
    return words


def announce(given: list[str]) -> list[str]:
    """Print what a run begins with, as far as it is known yet, and give it a folder if it has none.

    Returns:
        The command line, which names the folder now.

    Raises:
        UserError: the folder cannot be made.
    """
    options = [(flag, value) for flag, value, _ in _options(given)]
    configs = [
        str(find(value, "policy")) if flag == "--policy" else value
        for flag, value in options
        if flag in ("--config", "-c", "--policy") and value
    ]
    run = _run_of(given)
    begins = any(flag in ("--config", "-c") for flag, _ in options)
    held = Path(run) / "config.yaml"
    if any("help" in flag for flag, _ in options) or not (begins or (run and held.exists())):
        return given  # the parser has something to say
    try:
        settings = merged(*([] if begins else [held]), *configs)
        data, schedule = (_section(settings, options, name) for name in ("data", "schedule"))
    except (yaml.YAMLError, OSError, ValueError):  # UnicodeDecodeError among them: the parser says what is wrong
        return given
    if not run:
        run = free_folder(str(data.get("task") or "run"))
        given = [*given, "--run", run]
    is_new = not (Path(run) / "checkpoints").exists()
    told = {"task": _task(data)}
    told["folder"] = f"{run}, {'new' if is_new else 'which goes on'}"
    told["settings"] = _made_of(configs) if begins else str(held)
    told["until"] = until(schedule.get("rounds", 150), schedule.get("updates", 50), schedule.get("max_minutes"))
    told["cores"] = str(len(cores()) or os.cpu_count())
    print(f"worldmodel {worldmodel.__version__}\n{facts(**told)}", flush=True)
    return given


def _task(data: dict[str, Any]) -> str:
    """What there is to act in, in words."""
    task, count = data.get("task"), data.get("num_envs", 4)
    if count is None:
        return "none, only data" if task is None else f"{task}, to evaluate in; nothing is collected"
    return f"{task}, {count} environments"


def _section(settings: Any, options: list[tuple[str, str]], section: str) -> dict[str, Any]:
    """A section of settings, with what the command line says of it."""
    found = dict((settings.get(section) if isinstance(settings, dict) else None) or {})
    for flag, value in options:
        group, _, name = flag.removeprefix("--").partition(".")
        if group == section and name and "." not in name:
            found[name] = yaml.safe_load(value)
    return found


def until(rounds: int | None, updates: int, max_minutes: float | None) -> str:
    """When a run ends, in words."""
    limits = [] if rounds is None else [f"{rounds * updates:,} updates"]
    limits += [] if max_minutes is None else [f"{max_minutes:g} minutes"]
    return " or ".join(limits) or "nothing ends it"


def free_folder(task: str) -> str:
    """Make a folder for a run of this task that has no name: a short one that was not there yet."""
    module, _, called = task.rpartition(":")
    if called.lower() in ("make", "make_env", "make_environment", "create", "env") and module:
        called = module.rpartition(".")[2]  # which says more
    name = re.sub(r"[^\w-]+", "-", called.rpartition("/")[2].rpartition(".")[2].lower()).strip("-") or "run"
    for number in count(1):
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # or another process was quicker
            continue
        except OSError as cause:
            raise UserError(f"cannot make {folder} ({cause.strerror}): name another with --run") from cause
    return str(folder)


def _made_of(configs: list[str]) -> str:
    shown = ["text" if is_text(value) else _name(value) for value in configs]
    if not any(name.startswith("size/") for name in shown):
        shown.insert(0, "size/laptop")
    return ", ".join(name for name in shown if name not in ("base", "text"))


def _name(value: str) -> str:
    """What is shipped by its name, other files as they were named."""
    path = find(value)
    shipped = {find(name).resolve(): name for name in names()}
    return shipped.get(path.resolve(), value)


def _options(given: Iterable[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(flag, value, the words themselves), and ("", word, [word]) for what is no option."""
    words = list(given)
    at = 0
    while at < len(words):
        word = words[at]
        flag, equals, value = word.partition("=")
        if not flag.startswith("-"):
            yield "", word, [word]
        elif equals or at + 1 == len(words) or words[at + 1].startswith("--"):
            yield flag, value, [word]
        else:
            at += 1
            yield flag, words[at], [word, words[at]]
        at += 1


def _plain(name: str) -> str:
    return name.removeprefix("configs/").removeprefix("task/").removesuffix(".yaml")


def _check_task(task: str) -> None:
    from worldmodel.experience.tasks import check  # which loads gymnasium

    check(task)


def _known(command: str) -> set[str]:
    """The options of a command, down to those of classes inside it."""
    if command not in ("fit", "validate"):
        called = function_of(command)
        names = _arguments(_PACKAGE / "commands" / f"{called}.py", called)
        return {"help", *("trust-code" if name == "trust_code" else name for name in names)}
    found = {
        f"{group}.{name}" for group, where in _GROUPS.items() for name in _arguments(_PACKAGE / where[0], where[1])
    }
    return found | {*_OWN, *KINDS}


def _arguments(path: Path, name: str) -> list[str]:
    """The arguments of a function, or a class, as its source has them."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            node = next(x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__")
            name = "__init__"
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [x.arg for x in (*node.args.args, *node.args.kwonlyargs) if x.arg != "self"]
    raise LookupError(f"{path} has no {name}")
