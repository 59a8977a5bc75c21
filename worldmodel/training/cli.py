"""``worldmodel fit`` and ``worldmodel validate``, on LightningCLI, and the commands beside them."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.callbacks import Checkpoints, Clock, Collect, Console, Record, Truncate
from worldmodel.training.data import Experience, frozen_features
from worldmodel.training.parser import Parser
from worldmodel.training.run import CheckpointIO, CSVMetrics, RunFolder, launched_rank

# functions of the modules of the same names, loaded when they are called for
COMMANDS = {
    "report": "Show what a run has learned and how far to trust its doubts: an HTML file, calibration.json beside it.",
    "imagine": "Film what a run's model dreams, beside what happens.",
    "play": "Drive a run's dream in a browser, beside the real simulator under the same actions. Ctrl-C ends it.",
    "export": "Keep what a run has learned in a small folder, for report, imagine and play.",
}
_HELP = """beside them, each with a --help of its own:
worldmodel report --run RUN tells how far a run's doubts can be trusted;
worldmodel imagine --run RUN --out dream.mp4 films its dreams;
worldmodel play --run RUN lets you drive them;
worldmodel export --run RUN --out FOLDER keeps what is needed for these three"""
_FOLDER = "WORLDMODEL_FOLDER"  # tells the other ranks what the first has named the run


class CLI(LightningCLI):
    """Adds the run folder: it holds the configuration, and resumes from itself."""

    folder: RunFolder
    _dumped: dict[str, Any]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help="the run's folder; resumes what it holds")
        text = "a config of who acts, such as configs/policy/mppi.yaml: like --config, but leaves --run its own"
        parser.add_argument("--policy", type=str | None, default=None, help=text)
        parser.add_lightning_class_args(Console, "console")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        link(parser)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skipped = {"model", "dataloaders", "datamodule", "weights_only"}
        return {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "validate": skipped | {"verbose"}}

    def _parse_ckpt_path(self) -> None:
        """Checkpoints hold no configuration, the run folder does."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.policy:
            raise UserError("policy is for the command line: in a file, set model.evaluate_with and model.collect_with")
        if not config.run and not launched_rank():
            os.environ[_FOLDER] = f"runs/{config.data.task}-{datetime.now():%Y%m%d-%H%M%S}"
        self.folder = RunFolder(config.run or os.environ.get(_FOLDER, "runs/unnamed"))
        if self.subcommand == "fit":
            parser = self._parser(self.subcommand)
            self._dumped = yaml.safe_load(parser.dump(config, skip_link_targets=False))
            if config.get("ckpt_path") is None and (last := self._last()):
                config.ckpt_path = last
            self.folder.check(self._dumped, parser.get_defaults().as_dict())
        elif config.ckpt_path is None:
            config.ckpt_path = str(self.folder.best if self.folder.best.exists() else self.folder.last)

    def _last(self) -> str | None:
        """Where training goes on from; None where it begins."""
        if self.folder.last.exists():
            return str(self.folder.last)
        if self.folder.best.exists():
            raise UserError(
                f"{self.folder.path} holds no last.ckpt to go on from, only weights: begin another run with "
                f"--config {self.folder.config} --run runs/NAME"
            )
        return None

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as cause:
            raise UserError(reason(cause)) from cause
        self.datamodule.directory = self.folder.path
        if self.subcommand == "fit":  # what cannot be built leaves no trace
            if self.datamodule.store_features:
                frozen_features(self.model)
            self.folder.claim(self._dumped)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        clock, collect = Clock(), Collect()
        self._get(self.config_init, "console").bind(clock, collect)
        self._get(self.config_init, "checkpoints").bind(self.folder)
        extra = [clock, Truncate(self.folder), collect, Record(self.folder, clock)]
        trainer = super().instantiate_trainer(plugins=[CheckpointIO(resumes=self.subcommand == "fit")], **kwargs)
        # the first to act is the clock, the last the checkpoint
        trainer.callbacks = [*extra, *trainer.callbacks]  # type: ignore[attr-defined]
        if self.subcommand == "fit":
            trainer.loggers = [CSVMetrics(self.folder.path / "metrics.csv"), *trainer.loggers]
        return trainer


def link(parser: LightningArgumentParser) -> None:
    """What the model takes from the data, and the data from the seed."""
    parser.link_arguments("data.action", "model.action", apply_on="instantiate")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


def reason(cause: ValueError) -> str:
    """A constructor's word on its arguments, out of jsonargparse's list of what else could have been there."""
    text = str(cause)
    words = [x for x in re.findall(r"^\s*- (.+)$", text, re.MULTILINE) if not x.startswith(("Expected", "Does not"))]
    return " ".join((words[0] if "Union subtypes" in text and words else text).split())


def arguments(given: list[str]) -> list[str]:
    """A run folder alone means the configuration that it holds; a policy is a configuration that follows it."""
    return _with_policies(_with_run(given))


def _with_policies(given: list[str]) -> list[str]:
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


def _with_run(given: list[str]) -> list[str]:
    own = any(word in ("-h", "--help", "-c", "--config") or word.startswith("--config=") for word in given)
    if given[:1] not in (["fit"], ["validate"]) or own or any(word.endswith(".help") for word in given):
        return given
    for flag, value in zip(given, [*given[1:], ""], strict=True):
        folder = value if flag == "--run" else flag.removeprefix("--run=") if flag.startswith("--run=") else ""
        if folder:
            config = Path(folder) / "config.yaml"
            if not config.exists():
                raise UserError(f"{folder} holds no run: begin one with --config configs/base.yaml --run {folder}")
            return [given[0], "--config", str(config), *given[1:]]
    raise UserError("say what to run: --config configs/base.yaml begins a run, --run runs/NAME resumes one")


def command(given: list[str]) -> bool:
    """Run a command beside fit and validate; False for these two.

    Raises:
        UserError: there is no such command, or something that the person at the keyboard can mend.
    """
    names = [*CLI.subcommands(), *COMMANDS]
    if not given:
        raise UserError(f"say what to do: {', '.join(names)}, or --help")
    name = given[0]
    if name in COMMANDS:
        function = getattr(importlib.import_module(f"worldmodel.training.{name}"), name)
        parser = Parser(prog=f"worldmodel {name}", description=COMMANDS[name])
        parser.add_function_arguments(function)
        function(**parser.parse_args(given[1:]).as_dict())
        return True
    if name.startswith("-") or name in names:
        return False
    near = difflib.get_close_matches(name, names, n=1)
    raise UserError(f"no command {name}: {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(names)}")


def quiet() -> None:
    """Silence what a person can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (".*does not have many workers.*", ".*Checkpoint directory.*", ".*GPU available.*", ".*litlogger.*"):
        warnings.filterwarnings("ignore", text)
    warnings.filterwarnings("ignore", module="lightning.*")


def run(given: list[str] | None = None) -> None:
    """Run a command line; exit with 2 and one line when the person at the keyboard can mend it."""
    quiet()
    # on a CPU oneDNN's kernels instead of MKL's, which leave AVX-512 alone on some makers' processors (1.3 to 1.7 times
    # the speed of an update there); on a GPU TF32
    torch.set_float32_matmul_precision("medium")
    words = sys.argv[1:] if given is None else given
    try:
        if command(words):
            return
        CLI(
            Agent,
            Experience,
            args=arguments(words),
            save_config_callback=None,
            parser_class=Parser,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            parser_kwargs={"epilog": _HELP},
        )
    except UserError as error:
        print(f"worldmodel: {error}", file=sys.stderr)
        sys.exit(2)
