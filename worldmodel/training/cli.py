"""``worldmodel COMMAND``: finds the command and lets it run."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
import warnings

from worldmodel.errors import UserError

# functions of the modules of the same names in worldmodel/commands, loaded when they are called for
COMMANDS = {
    "report": "Show what a run has learned and how well its uncertainty is calibrated, in HTML and calibration.json.",
    "imagine": "Film what a run's model dreams, beside what happens.",
    "play": "Drive a run's dream in a browser, beside the real simulator under the same actions. Ctrl-C ends it.",
    "export": "Keep what a run has learned in a small folder, for report, imagine and play.",
}
TRAINING = ("fit", "validate")
_HELP = """usage: worldmodel COMMAND [OPTIONS]

Learn a latent world model from pixels, know how uncertain it is, and control with it.

  fit        train a run, or go on with what its folder holds
  validate   evaluate a run's weights in new episodes
  report     what a run has learned and how well its uncertainty is calibrated, as one HTML file
  imagine    a film of what its model predicts, beside what happens
  play       drive its model in a browser, beside the simulator
  export     what the last three need of a run, a few MB

Begin:
  worldmodel fit --config task/cartpole_balance --run runs/balance
  worldmodel fit --config task/walker_walk --config size/12m --config transition/independent --run runs/walker
Go on, after a kill or for longer:
  worldmodel fit --run runs/balance
  worldmodel fit --run runs/balance --schedule.rounds 300
Look at it:
  worldmodel report --run runs/balance
  worldmodel imagine --run runs/balance --out dream.mp4
  worldmodel play --run runs/balance
Plan instead of asking the actor:
  worldmodel validate --run runs/balance --policy policy/cem

--config takes what is shipped, by name, and files of your own. Tasks, sizes, encoders, transitions and policies go
together in any order. `worldmodel COMMAND --help` has the options that are set first; `worldmodel fit --help` names
the configurations too, and `worldmodel fit --help-all` has every setting."""


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
        from worldmodel.training.parser import Parser  # which takes a while to load

        parser = Parser(prog=f"worldmodel {name}", description=COMMANDS[name])
        if "trust_code" in inspect.signature(function).parameters:
            text = "build whatever the run names, also code that is not of this package"
            parser.add_argument("--trust-code", action="store_true", help=text)
        parser.add_function_arguments(function, skip={"trust_code"})
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
    torch = sys.modules.get("torch")  # not loaded for a page of help
    precision = torch.get_float32_matmul_precision() if torch else None
    try:
        command(sys.argv[1:] if given is None else given)
    except UserError as error:
        print(f"worldmodel: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # of a file: its name is too long, it cannot be read or written
        if error.filename is None:
            raise
        print(f"worldmodel: {UserError(f'{str(error.filename)[:200]}: {error.strerror}')}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(130)
    finally:
        if torch:
            torch.set_float32_matmul_precision(precision)  # which commands set
