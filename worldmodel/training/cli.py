"""``worldmodel COMMAND``: finds the command and lets it run."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
import warnings

import worldmodel
from worldmodel.errors import UserError
from worldmodel.training import early

# functions of the modules of the same names in worldmodel/commands, loaded when they are called for
COMMANDS = {
    "report": "Show what a run has learned and how well its uncertainty is calibrated, in HTML and JSON.",
    "imagine": "Film what a run's model dreams, beside what happens.",
    "play": "Drive a run's dream in a browser, beside the real simulator under the same actions. Ctrl-C ends it.",
    "export": "Keep what a run has learned in a small folder, for report, imagine and play; or its actor as a program.",
}
DATA = {
    "import": "Bring recorded episodes of others into a run that is to be trained on them.",
    "export-data": "Write the episodes that a run has collected as others read them.",
}
TRAINING = ("fit", "validate")
TASKS = "tasks"
_HELP = """usage: worldmodel COMMAND [OPTIONS]

Learn a latent world model from pixels, know how uncertain it is, and control with it.

  fit        train a run, or go on with what its folder holds
  validate   evaluate a run's weights in new episodes
  report     what a run has learned and how well its uncertainty is calibrated, as one HTML file
  imagine    a film of what its model predicts, beside what happens
  play       drive its model in a browser, beside the simulator
  export     what the last three need of a run, a few MB; or its actor as one program (torch.export, ONNX)
  import     episodes recorded elsewhere (V-D4RL, Minari, LeRobot, HDF5, videos) as the replay of a run
  export-data  the episodes of a run, as Minari or in one HDF5 file
  tasks      what there is to train on, and what of it is installed

Begin:
  worldmodel fit --task cartpole_balance
  worldmodel fit --task walker_walk --size 12m --transition independent --run runs/walker
Go on, after Ctrl-C or a kill, or for longer:
  worldmodel fit --run runs/walker
  worldmodel fit --run runs/walker --schedule.rounds 300
Look at it:
  worldmodel report --run runs/walker
  worldmodel imagine --run runs/walker --out dream.mp4
  worldmodel play --run runs/walker
Plan instead of asking the actor:
  worldmodel validate --run runs/walker --policy cem
Learn from what is there, without an environment:
  worldmodel import minari data/door-human --run runs/door
  worldmodel fit --offline --run runs/door

--task, --size, --encoder, --representation, --transition and --policy take what is shipped, by name, in any order, and
--task any Gymnasium id or module:callable too (`worldmodel tasks` lists them); --config takes files of your own.
`worldmodel COMMAND --help` has the options that are set first, `worldmodel fit --help-all` every setting."""


def command(given: list[str]) -> None:
    """Run a command.

    Raises:
        UserError: there is no such command, or something that the person at the keyboard can mend.
    """
    names = [*TRAINING, *COMMANDS, *DATA, TASKS]
    if not given:
        raise UserError(f"say what to do: {', '.join(names)}, or --help")
    if any("\0" in word for word in given):
        raise UserError("a word of this command holds NUL, which no name can")
    name, rest = given[0], given[1:]
    if name in ("-h", "--help"):
        print(_HELP)
        sys.exit(0)
    if name == "--version":
        print(f"worldmodel {worldmodel.__version__}")
        sys.exit(0)
    if name in TRAINING:
        _train(name, rest)
        return
    if name == TASKS:
        importlib.import_module("worldmodel.commands.tasks").tasks()
        return
    if name in COMMANDS or name in DATA:
        early.check(name, rest)
        _say_that_it_loads(name, rest)
        called = early.function_of(name)
        function = getattr(importlib.import_module(f"worldmodel.commands.{called}"), called)
        from worldmodel.training.parser import Parser  # which takes a while to load

        parser = Parser(prog=f"worldmodel {name}", description={**COMMANDS, **DATA}[name])
        if "trust_code" in inspect.signature(function).parameters:
            text = "build whatever the run names, also code that is not of this package"
            parser.add_argument("--trust-code", action="store_true", help=text)
        parser.add_function_arguments(function, skip={"trust_code"}, as_positional=name == "import")
        function(**parser.parse_args(rest).as_dict())
        return
    near = difflib.get_close_matches(name, names, n=1)
    raise UserError(f"no command {name}: {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(names)}")


def _train(name: str, given: list[str]) -> None:
    """What can be said without torch is said before it is loaded."""
    given = early.expand(given)
    early.check(name, given)
    if name == "fit":
        with early.announced(given) as given:
            importlib.import_module("worldmodel.training.fit").fit(given)
        return
    _say_that_it_loads(name, given)
    getattr(importlib.import_module("worldmodel.training.fit"), name)(given)


def _say_that_it_loads(name: str, given: list[str]) -> None:
    """To a person who would else look at nothing for seconds."""
    if sys.stdout.isatty() and not any("help" in word for word in given):
        print(f"{name}: loading torch", flush=True)


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
    except ValueError as error:  # of a name in a configuration, wherever it is used
        if "embedded null" not in str(error):
            raise
        print("worldmodel: a name of a file holds NUL, which none can", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:  # an extra, such as a logger's
        if (error.name or "").partition(".")[0] in ("worldmodel", "encoders"):
            raise
        said = f"{error.name} is not installed: pip install {error.name}" if error.name else str(error)
        print(f"worldmodel: {' '.join(said.split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("worldmodel: interrupted; there was nothing to save", file=sys.stderr)
        sys.exit(130)
    finally:
        if torch:
            torch.set_float32_matmul_precision(precision)  # which commands set
