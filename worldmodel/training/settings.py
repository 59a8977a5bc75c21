"""The command line of training, and what is built from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace

import worldmodel as front_door
from encoders.ranges import Seed
from worldmodel.errors import UserError, one_line
from worldmodel.training.agent import Agent
from worldmodel.training.allowed import check_parts, check_task, check_value
from worldmodel.training.average import WeightAverage
from worldmodel.training.configs import KINDS, arrange, check_begins, find, is_text, is_whole, merge, names
from worldmodel.training.data import Experience
from worldmodel.training.fabric import make_fabric
from worldmodel.training.optimizer import Optimizer
from worldmodel.training.parser import Parser
from worldmodel.training.randomness import seed_all, seed_for
from worldmodel.training.schedule import Schedule
from worldmodel.training.yaml_files import read_yaml
from worldmodel.types import ActionSpec

_Parts = Mapping[str, Callable[..., Any]]
PARTS: _Parts = {"data": Experience, "optimizer": Optimizer, "average": WeightAverage, "model": Agent}  # what a run is
MACHINE: _Parts = {"fabric": make_fabric, "schedule": Schedule}  # and where and how long it is trained


def add_parts(parser: Parser) -> None:
    """The seed, data, optimizer and model: what a run is without its length and its machine."""
    parser.add_argument("--seed", type=Seed, default=0, help="everything that is drawn derives from it")
    parser.add_class_arguments(Experience, "data", instantiate=False)
    parser.add_class_arguments(Optimizer, "optimizer", instantiate=False)
    parser.add_class_arguments(WeightAverage, "average", instantiate=False)
    parser.add_class_arguments(
        Agent, "model", skip={"action", "optimizer", "average", "vector_size"}, instantiate=False
    )


_FIRST = (
    *("help", "help-all", "config", "run", "policy", "checkpoint", "rewind", "pretrained", "seed"),
    *("fabric.devices", "fabric.precision", "schedule.", "data.task", "data.action_repeat", "data.num_envs"),
    *("data.episode_frames", "data.batch", "data.length", "model.compile"),
)


def training_parser(name: str, description: str) -> Parser:
    """The parser of a command that has all the settings of a run."""
    usage = f"worldmodel {name} [--config NAME ...] [--run FOLDER] [OPTIONS]"
    parser = Parser(prog=f"worldmodel {name}", description=description, usage=usage)
    parser.add_help_all(_FIRST, _shipped())
    text = "what is shipped (task/walker_walk) or a file of settings; may be given again and again"
    parser.add_argument("-c", "--config", action=ActionConfigFile, help=text)
    parser.add_argument("--run", type=str | None, default=None, help="the run's folder; resumes what it holds")
    text = "a config of who acts, such as policy/mppi: like --config, but leaves --run its own"
    parser.add_argument("--policy", type=str | None, default=None, help=text)
    text = "go on from it, or evaluate it, rather than from the run's own"
    parser.add_argument("--checkpoint", type=str | None, default=None, help=text)
    parser.add_function_arguments(make_fabric, "fabric")
    parser.add_class_arguments(Schedule, "schedule", instantiate=False)
    add_parts(parser)
    return parser


def _shipped() -> str:
    """What there is to name after ``--config``, a paragraph for each kind."""
    text = "shipped, by --KIND NAME or --config KIND/NAME, in any order; what is not named is base, at the size laptop:"
    for kind in KINDS:
        listed = ", ".join(name.removeprefix(f"{kind}/") for name in names(kind))
        text += "\n" + fill(f"{kind}/ {listed}", 100, initial_indent="  ", subsequent_indent="    ")
    return f"{text}\n\n--model.world_model.help and the like explain a class; --help-all shows every option.\n"


class Settings:
    """Settings that were read and checked, before anything is built.

    Args:
        parser: that read them.
        config: what it read.
    """

    def __init__(self, parser: Parser, config: Namespace) -> None:
        self.parser, self.config = parser, config
        check_value(config.seed, Seed, "seed")
        check_parts(config.as_dict(), {**PARTS, **MACHINE})  # a function that is called may do anything
        seed_all(seed_for(config.seed, 0, "parameters"))  # encoders are made here
        try:
            self._made = parser.instantiate(config)
        except ValueError as cause:
            raise UserError(reason(cause)) from cause

    def fabric(self) -> Any:
        """Devices, ranks and precision, not launched yet."""
        return make_fabric(**vars(self._made.fabric))

    def schedule(self) -> Schedule:
        return Schedule(**vars(self._made.schedule))

    def data(self) -> Experience:
        return Experience(**vars(self._made.data))

    def agent(self, action: ActionSpec, vector_size: int = 0) -> Agent:
        """World model, actor and critic, for such actions and as many numbers beside an image; draws their parameters.

        Raises:
            UserError: settings do not go together, images are of another size than the model's, or memory is short.
        """
        try:
            optimizer, average = Optimizer(**vars(self._made.optimizer)), WeightAverage(**vars(self._made.average))
            made: dict[str, Any] = {"optimizer": optimizer, "average": average, "vector_size": vector_size}
            agent = Agent(action, **made, **vars(self._made.model))
            self._look(agent)
        except ValueError as cause:
            raise UserError(reason(cause)) from cause
        except (RuntimeError, MemoryError) as cause:
            if "memory" not in str(cause):
                raise
            raise UserError(f"there is not enough memory for a model of this size: {one_line(cause)}") from cause
        return agent

    @torch.no_grad()
    def _look(self, agent: Agent) -> None:
        """Find out before anything is collected whether the model takes the images."""
        size, camera = self._made.data.size, self._made.data.camera
        image = torch.zeros(1, 3, size, size * (len(camera) if isinstance(camera, list) else 1), dtype=torch.uint8)
        model = agent.eval().world_model
        try:
            model.embed_image(image)
            if model.draws:
                model.decoder.pixels(image)
        except ValueError as cause:
            raise UserError(f"data.size is {size}, which the model does not take: {one_line(cause)}") from cause
        agent.train()

    def dump(self) -> dict[str, Any]:
        """As plain data, the way ``config.yaml`` holds it."""
        return plain(self.parser, self.config)

    def defaults(self) -> dict[str, Any]:
        """What a setting is that nobody gave."""
        return self.parser.get_defaults().as_dict()


def plain(parser: Parser, config: Namespace) -> dict[str, Any]:
    """Settings as plain data, classes by their whole path: jsonargparse would write the front door's."""
    return _spelled_out(yaml.safe_load(parser.dump(config, skip_unset=False)))


def _spelled_out(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _spelled_out(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_spelled_out(value) for value in tree]
    return front_door._path(tree) if isinstance(tree, str) else tree


def check_run(held: Mapping[str, Any], source: Path | str) -> None:
    """Find that the settings of somebody else's run name nothing but what is installed here.

    Raises:
        UserError: it would import something else; says what.
    """
    check_parts(held, PARTS, str(source))
    if (task := held["data"].get("task", "cartpole_balance")) is not None:
        check_task(task, str(source))


def read(parser: Parser, given: list[str], trust_code: bool = True) -> Settings:
    """Settings from a command line.

    Args:
        parser: of the command.
        given: its words.
        trust_code: the configurations may name any code; without it those that describe a whole run may not.

    Raises:
        UserError: they cannot be read, or built.
    """
    config = parser.parse_args(with_configs(given, trust_code))
    if config.policy:
        raise UserError("policy is for the command line: in a file, set model.evaluate_with and model.collect_with")
    return Settings(parser, config)


def reason(cause: ValueError) -> str:
    """A constructor's word on its arguments, out of jsonargparse's list of what else could have been there."""
    text = str(cause)
    words = [x for x in re.findall(r"^\s*- (.+)$", text, re.MULTILINE) if not x.startswith(("Expected", "Does not"))]
    return " ".join((words[0] if "Union subtypes" in text and words else text).split())


def with_configs(given: list[str], trust_code: bool = True) -> list[str]:
    """A command line with its configurations found, in the order in which they lie over one another, and first.

    A policy is a configuration that leaves a run its own. A run folder alone means the configuration that it holds.
    ``trust_code`` as for ``read``.

    Raises:
        UserError: a configuration or the run is not there, or names code without trust, or nothing says what to run.
    """
    found: list[Path | str] = []
    rest: list[str] = []
    run, begins, asks = "", False, False
    words = iter(given)
    for word in words:
        flag, equals, value = word.partition("=")
        asks = asks or flag in ("-h", "--help", "--help-all") or flag.endswith(".help")
        if flag not in ("-c", "--config", "--policy", "--run"):
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if flag == "--run":
            run = value
            rest += [word] if equals or not value else [word, value]
            continue
        begins = begins or flag != "--policy"
        found.append(_found(flag, value))
    if asks and not begins:
        return given
    check_begins(run, begins)
    if not begins:
        found.insert(0, Path(run) / "config.yaml")
    ordered = arrange(found)
    if not trust_code:
        ordered = _checked(ordered)
    return [*(word for path in ordered for word in ("--config", str(path))), *rest]


def _checked(paths: Iterable[Path | str]) -> list[Path | str]:
    """The same configurations, if those of whole runs, and all of them together, name only what is installed here."""
    checked: list[Path | str] = []
    together: dict[str, Any] = {}
    for path in paths:
        tree = read_yaml(path)
        if not isinstance(tree, dict):  # the parser complains of it
            return list(paths)
        if is_whole(path):
            _check_all(tree, str(path))
            path = yaml.safe_dump(tree)  # what was checked is what is read
        checked.append(path)
        together = merge(together, tree)
    _check_all(together, "the configuration")
    return checked


def _check_all(tree: dict[str, Any], source: str) -> None:
    known = {"seed", *PARTS, *MACHINE}
    if unknown := sorted(tree.keys() - known):
        raise UserError(f"{source}: no option {unknown[0]}: a run has {', '.join(sorted(known))}")
    if isinstance(tree.get("fabric"), dict):
        tree["fabric"].pop("loggers", None)  # of another program's, and nothing is logged
    check_parts(tree, MACHINE, source)
    check_run({"data": {}, **tree}, source)


def _found(flag: str, value: str) -> Path | str:
    if not value:
        shipped = "configs/policy holds" if flag == "--policy" else "configs/ holds"
        raise UserError(f"{flag} wants a file: {shipped} those that are shipped")
    if flag != "--policy" and is_text(value):
        return value
    return find(value, "policy" if flag == "--policy" else "")
