"""The argument parser: what it has to complain about becomes one line, with near names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from worldmodel.errors import UserError

_UNKNOWN = re.compile(r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)")
_UNKNOWN_INSIDE = re.compile(r"Option '([\w.]+)' is not accepted")
_UNKNOWN_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_NOT_OF_KIND = re.compile(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)")
_NO_SUBCLASS = re.compile(r"Expected '([\w.]+)' to be a subclass of <class '(?:[\w.]+\.)?(\w+)'>")
_EXPECTED = re.compile(r"Expected an? (.+?)(?:\.? Got value: (.+?))?(?:\. Got value: .*)?$", re.MULTILINE)
_REQUIRED = re.compile(r"the following arguments are required: ([\w., ]+?)(?:\.? Got value|$)", re.MULTILINE)
_CLASS_PATH = re.compile(r"class_path[ =]'([\w.]+)'")


class Parser(ArgumentParser):
    """Raises UserError where argparse would print its whole usage.

    ``first`` are the options that ``--help`` shows, by name or by the beginning of one that ends in a dot; all of them
    if there are none. ``more`` is what it says below them.
    """

    first: tuple[str, ...] = ()
    more = ""

    def add_help_all(self, first: tuple[str, ...], more: str) -> None:
        """Let ``--help`` show but the options that are set first, and ``--help-all`` the rest too."""
        self.first, self.more = first, more
        self.add_argument("--help-all", action=_HelpAll, help="show every option")

    def format_help(self, *given: Any, **named: Any) -> str:  # what is given differs with jsonargparse's version
        if not self.first:
            return super().format_help(*given, **named)
        hidden = [action for action in self._actions if not self._is_first(action)]
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            return f"{super().format_help(*given, **named)}\n{self.more}"
        finally:
            for action, text in zip(hidden, texts, strict=True):
                action.help = text

    def _is_first(self, action: argparse.Action) -> bool:
        names = [name.removeprefix("--") for name in action.option_strings]
        return any(name == one or (one.endswith(".") and name.startswith(one)) for name in names for one in self.first)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a nested parser, whose caller may try something else
            super().error(message, ex)
        raise UserError(explain(message, self._names())) from ex

    def _names(self) -> list[str]:
        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        return [s.removeprefix("--") for p in parsers for a in p._actions for s in a.option_strings if s[:2] == "--"]


class _HelpAll(argparse.Action):
    """``--help-all``."""

    def __init__(self, option_strings: list[str], dest: str = argparse.SUPPRESS, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, Parser)
        parser.first = ()
        parser.print_help()
        parser.exit()


def explain(message: str, names: Iterable[str]) -> str:
    """One line that says what jsonargparse's ``message`` means; ``names`` are the options that there are."""
    where = ".".join(re.findall(r'Parser key "([\w.]+)"', message))
    if found := _UNKNOWN.search(message):
        group = re.search(r"Group '([\w.]+)'", message)
        name = found[1] if group is None or found[1].startswith(f"{group[1]}.") else f"{group[1]}.{found[1]}"
        return f"no option {name}{_near(name, names)}"
    if found := _UNKNOWN_INSIDE.search(message):
        if not where:
            return f"no option {found[1]}{_near(found[1], names)}"
        owner = _CLASS_PATH.search(message)
        inside = inspect.signature(_load(owner[1])).parameters if owner else []
        return f"{where} has no option {found[1]}{_near(found[1], inside)}"
    if found := _UNKNOWN_CLASS.search(message):
        return f"{where}: {found[1]} has no {found[2]}{_near(found[2], vars(importlib.import_module(found[1])))}"
    if found := _NOT_OF_KIND.search(message) or _NO_SUBCLASS.search(message):
        return f"{where}: {found[1]} is no {found[2]}"
    if where and (found := _REQUIRED.search(message)):
        return f"{where} lacks a setting that has no default: {found[1]}"
    kinds = [_readable(x[1]) for x in _EXPECTED.finditer(message) if "path" not in x[1]]
    if where and kinds:
        value = re.search(r"Got value: (\S.*?)(?:\. Got value|$)|Given value: (.*)", message, re.MULTILINE)
        return f"{where}: expected {' or '.join(kinds)}" + (f", got {value[1] or value[2]}" if value else "")
    return " ".join(message.split())[:300]


def _near(name: str, names: Iterable[str]) -> str:
    """A hint by whole names, or by the last part of a dotted one."""
    known = sorted(set(names) - {"self"})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    return f": did you mean {' or '.join(near)}?" if near else ": --help lists them" if "." in name else ""


def _readable(kind: str) -> str:
    kind = re.sub(r"<class '([\w.]+)'>", r"\1", kind).replace("NoneType", "null")
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", kind)


def _load(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
