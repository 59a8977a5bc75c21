"""``worldmodel COMMAND``: finds the command and lets it run."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
import warnings

import torch

from worldmodel.errors import UserError
from worldmodel.training.parser import Parser

# functions of the modules of the same names in worldmodel/commands, loaded when they are called for
COMMANDS = {
    "report": "Show what a run has learned and how well its uncertainty is calibrated, in HTML and calibration.json.",
    "imagine": "Film what a run's model dreams, beside what happens.",
    "play": "Drive a run's dream in a browser, beside the real simulator under the same actions. Ctrl-C ends it.",
    "export": "Keep what a run has learned in a small folder, for report, imagine and play.",
}
TRAINING = ("fit", "validate")
_HELP = """worldmodel COMMAND, each with a --help of its own:
worldmodel fit --config configs/base.yaml --run RUN trains, and goes on with what RUN holds;
worldmodel validate --run RUN evaluates its weights;
worldmodel report --run RUN tells how well a run's uncertainty is calibrated;
worldmodel imagine --run RUN --out dream.mp4 films its dreams;
worldmodel play --run RUN lets you drive them;
worldmodel export --run RUN --out FOLDER keeps what is needed for these three"""


def command(given: list[str]) -> None:
    """Run a command.

    Raises:
        UserError: there is no such command, or something that the person at the keyboard can mend.
    """
    names = [*TRAINING, *COMMANDS]
    if not given:
        raise UserError(f"say what to do: {', '.join(names)}, or --help")
    name, rest = given[0], given[1:]
    if name in ("-h", "--help"):
        print(_HELP)
        sys.exit(0)
    if name in TRAINING:
        getattr(importlib.import_module("worldmodel.training.fit"), name)(rest)
        return
    if name in COMMANDS:
        function = getattr(importlib.import_module(f"worldmodel.commands.{name}"), name)
        parser = Parser(prog=f"worldmodel {name}", description=COMMANDS[name])
        parser.add_function_arguments(function)
        function(**parser.parse_args(rest).as_dict())
        return
    near = difflib.get_close_matches(name, names, n=1)
    raise UserError(f"no command {name}: {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(names)}")


def quiet() -> None:
    """Silence what a person can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.*")


def run(given: list[str] | None = None) -> None:
    """Run a command line; exit with 2 and one line when the person at the keyboard can mend it."""
    quiet()
    precision = torch.get_float32_matmul_precision()
    try:
        command(sys.argv[1:] if given is None else given)
    except UserError as error:
        print(f"worldmodel: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(130)
    finally:
        torch.set_float32_matmul_precision(precision)  # which commands set
