"""The command line of training, and what is built from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, Namespace

from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience
from worldmodel.training.fabric import make_fabric
from worldmodel.training.optimizer import Optimizer
from worldmodel.training.parser import Parser
from worldmodel.training.randomness import seed_all, seed_for
from worldmodel.training.schedule import Schedule
from worldmodel.types import ActionSpec


def add_parts(parser: Parser) -> None:
    """The seed, data, optimizer and model: what a run is without its length and its machine."""
    parser.add_argument("--seed", type=int, default=0, help="everything that is drawn derives from it")
    parser.add_class_arguments(Experience, "data", instantiate=False)
    parser.add_class_arguments(Optimizer, "optimizer", instantiate=False)
    parser.add_class_arguments(Agent, "model", skip={"action", "optimizer"}, instantiate=False)


def training_parser(name: str, description: str) -> Parser:
    """The parser of a command that has all the settings of a run."""
    parser = Parser(prog=f"worldmodel {name}", description=description)
    text = "a file of settings; those that follow lay themselves over it"
    parser.add_argument("-c", "--config", action=ActionConfigFile, help=text)
    parser.add_argument("--run", type=str | None, default=None, help="the run's folder; resumes what it holds")
    text = "a config of who acts, such as configs/policy/mppi.yaml: like --config, but leaves --run its own"
    parser.add_argument("--policy", type=str | None, default=None, help=text)
    text = "go on from it, or evaluate it, rather than from the run's own"
    parser.add_argument("--checkpoint", type=str | None, default=None, help=text)
    parser.add_function_arguments(make_fabric, "fabric")
    parser.add_class_arguments(Schedule, "schedule", instantiate=False)
    add_parts(parser)
    return parser


class Settings:
    """Settings that were read and checked, before anything is built.

    Args:
        parser: that read them.
        config: what it read.
    """

    def __init__(self, parser: Parser, config: Namespace) -> None:
        self.parser, self.config = parser, config
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

    def agent(self, action: ActionSpec) -> Agent:
        """World model, actor and critic; draws their parameters."""
        try:
            return Agent(action, optimizer=Optimizer(**vars(self._made.optimizer)), **vars(self._made.model))
        except ValueError as cause:
            raise UserError(reason(cause)) from cause

    def dump(self) -> dict[str, Any]:
        """As plain data, the way ``config.yaml`` holds it."""
        return yaml.safe_load(self.parser.dump(self.config, skip_unset=False))

    def defaults(self) -> dict[str, Any]:
        """What a setting is that nobody gave."""
        return self.parser.get_defaults().as_dict()


def read(parser: Parser, given: list[str]) -> Settings:
    """Settings from a command line.

    Raises:
        UserError: they cannot be read, or built.
    """
    config = parser.parse_args(with_policies(with_run(given)))
    if config.policy:
        raise UserError("policy is for the command line: in a file, set model.evaluate_with and model.collect_with")
    return Settings(parser, config)


def reason(cause: ValueError) -> str:
    """A constructor's word on its arguments, out of jsonargparse's list of what else could have been there."""
    text = str(cause)
    words = [x for x in re.findall(r"^\s*- (.+)$", text, re.MULTILINE) if not x.startswith(("Expected", "Does not"))]
    return " ".join((words[0] if "Union subtypes" in text and words else text).split())


def with_policies(given: list[str]) -> list[str]:
    """A policy is a configuration that follows the run's."""
    words: list[str] = []
    rest = iter(given)
    for word in rest:
        flag, equals, path = word.partition("=")
        if flag != "--policy":
            words.append(word)
            continue
        path = path if equals else next(rest, "")
        if not Path(path).is_file():
            lacking = f"there is no policy file {path}" if path else "--policy wants a file"
            raise UserError(f"{lacking}: configs/policy holds those that are shipped")
        words += ["--config", path]
    return words


def with_run(given: list[str]) -> list[str]:
    """A run folder alone means the configuration that it holds."""
    own = any(word in ("-h", "--help", "-c", "--config") or word.startswith("--config=") for word in given)
    if own or any(word.endswith(".help") for word in given):
        return given
    for flag, value in zip(given, [*given[1:], ""], strict=False):
        folder = value if flag == "--run" else flag.removeprefix("--run=") if flag.startswith("--run=") else ""
        if folder:
            config = Path(folder) / "config.yaml"
            if not config.exists():
                raise UserError(f"{folder} holds no run: begin one with --config configs/base.yaml --run {folder}")
            return ["--config", str(config), *given]
    raise UserError("say what to run: --config configs/base.yaml begins a run, --run runs/NAME resumes one")
