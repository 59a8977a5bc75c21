"""What a configuration may name: classes of the kind that is wanted, and in somebody else's run only our own.

Settings are compared with the annotations of what would be built, before anything that they name is imported (a
stranger's) or called (anybody's).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import gymnasium

import worldmodel as front_door
from encoders.ranges import Range
from worldmodel.errors import UserError

OURS = ("worldmodel", "encoders")  # packages
_TOYS = "worldmodel.experience.toy"
_PLAIN = (bool, int, float, complex, str, bytes, Enum, Path)
_CLASS_KEYS = {"class_path", "init_args"}
_WAY_OUT = "--trust-code (trust_code=True in Python) allows it, if you trust who made it"


def check_parts(tree: Mapping[str, Any], parts: Mapping[str, Callable[..., Any]], source: str = "") -> None:
    """Check the settings of a run, or of a stranger's where there is a ``source``.

    Args:
        tree: settings by section, plain data.
        parts: the class or function that each section is given to.
        source: the file that nobody trusts: nothing outside our packages is imported for it. Without one the settings
            are somebody's own, and only have to be of the right kind.

    Raises:
        UserError: a setting names something else, or (a stranger's) one that there is not.
    """
    for section, given_to in parts.items():
        if section in tree:
            _Check(source).arguments(given_to, tree[section], section)


def check_value(value: Any, kind: Any, where: str, source: str = "") -> None:
    """The same for one setting of this kind, such as ``MakeController``."""
    _Check(source).value(value, [kind], where)


def check_task(task: Any, source: str) -> None:
    """Find that a stranger's task is one of the installation's: a dm_control task, a Gymnasium id, or a toy task.

    Raises:
        UserError: it would import something else, or is no text.
    """
    if not isinstance(task, str):
        raise UserError(f"{source}: data.task is no text")
    module, colon, name = task.partition(":")
    if not colon or task in gymnasium.registry:
        return
    toy = vars(importlib.import_module(_TOYS)).get(name) if module == _TOYS else None
    if not (inspect.isclass(toy) and issubclass(toy, gymnasium.Env) and toy.__module__ == _TOYS):
        raise UserError(f"{source}: data.task would import {module!r} to make {name!r}: {_WAY_OUT}")


class _Check:
    """Walks over settings. ``source`` is a stranger's file; empty for somebody's own settings."""

    def __init__(self, source: str) -> None:
        self.source = source

    def arguments(self, given_to: Callable[..., Any], tree: Any, where: str) -> None:
        """Of a class or a function, by name."""
        if not isinstance(tree, Mapping):
            if self.source:
                self._refuse(where, "wanted is a group of settings")
            return
        kinds = _kinds(given_to)
        for name, value in tree.items():
            if name not in kinds and self.source:
                group = "" if "." in where else f"{where}."
                near = [group + x for x in difflib.get_close_matches(name, kinds, n=3, cutoff=0.7)]
                hint = f": did you mean {' or '.join(near)}?" if near else ""
                what = f"no option {group}{name}" if group else f"{where} has no option {name}"
                raise UserError(f"{self.source}: {what}{hint}")
            self.value(value, [kinds.get(name, Any)], f"{where}.{name}".replace(".init_args", ""))

    def value(self, value: Any, kinds: Iterable[Any], where: str) -> None:
        """One setting, of one of the kinds, such as ``int``, ``list[Encoder]`` or ``Callable[[int], Decoder]``."""
        options = [option for kind in kinds for option in _options(kind)]
        bases = [base for option in options if (base := _built(option)) is not None]
        inside = [x for option in options for x in _elements(option)] or [Any]
        if isinstance(value, int | float) and not isinstance(value, bool):
            limits = [x for kind in kinds for x in _ranges(kind)]
            if limits and not any(limit.holds(value) for limit in limits):
                self._refuse(where, f"it is {value} and must be {' or '.join(map(repr, limits))}")
        if value is None or isinstance(value, int | float):
            return
        if self.source and isinstance(value, str) and not bases and any(map(_holds_classes, options)):
            self._refuse(where, "wanted are several, and not a text")  # which the parser would take for YAML
        if isinstance(value, list | tuple):
            for index, item in enumerate(value):
                self.value(item, inside, f"{where}[{index}]")
        elif bases:
            self._class(value, bases, options, where)
        elif isinstance(value, Mapping):
            if self.source and value.keys() & _CLASS_KEYS:
                self._refuse(where, "a class is named where none is wanted")
            for name, item in value.items():
                self.value(item, inside, f"{where}.{name}")

    def _class(self, value: Any, bases: list[type], options: list[Any], where: str) -> None:
        """A class by its path, with arguments or without, or (a default) the class itself."""
        if isinstance(value, str) and _is_number(value) and any(option in (int, float) for option in options):
            return
        path: Any = value
        if isinstance(value, Mapping):
            path = value.get("class_path")
            if path is None and not self.source:
                return  # the kind that is wanted, or the parser complains
            if self.source and not (isinstance(path, str) and value.keys() <= _CLASS_KEYS):
                self._refuse(where, "wanted are class_path and init_args, and nothing else")
        found = path
        if isinstance(path, str):
            found = self._ours(path, where) if self.source else _loaded(path)
        if found is None:
            return  # not to be had: the parser says so
        if not _is_kind(found, bases, own=not self.source):
            called = path if isinstance(path, str) else getattr(found, "__qualname__", type(found).__name__)
            self._refuse(where, f"{called} is no {' or '.join(base.__name__ for base in bases)}")
        if isinstance(value, Mapping) and value.get("init_args") is not None:
            self.arguments(found, value["init_args"], where)

    def _ours(self, path: str, where: str) -> Any:
        """What a path names in our own packages, which are all that is imported for a stranger."""
        path = front_door._path(path)
        module, _, name = path.rpartition(".")
        if not all(part.isidentifier() for part in path.split(".")) or path.split(".")[0] not in OURS or not module:
            self._refuse(where, f"{path[:120]!r} would be imported: {_WAY_OUT}")
        try:
            known = vars(importlib.import_module(module))
        except ImportError:
            self._refuse(where, "{} has no {}".format(*module.rsplit(".", 1)) if "." in module else f"no {module}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
            self._refuse(where, f"{module} has no {name}" + (f": did you mean {' or '.join(near)}?" if near else ""))
        found = known[name]
        if not inspect.isclass(found) or found.__module__.split(".")[0] not in OURS:
            self._refuse(where, f"{path} is no class of {' or '.join(OURS)}")
        return found

    def _refuse(self, where: str, words: str) -> NoReturn:
        raise UserError(f"{self.source}: {where}: {words}" if self.source else f"{where}: {words}")


def _kinds(given_to: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a class's or a function's arguments, by name; what it hands on, of the class that it extends."""
    function = given_to.__init__ if inspect.isclass(given_to) else given_to
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(given_to).parameters
    except (NameError, TypeError, ValueError):  # somebody's own that hides its types: the parser has its own ways
        return {}
    more = [name for name, parameter in parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    handed = _kinds(given_to.__mro__[1]) if inspect.isclass(given_to) and more else {}
    return handed | {name: hints.get(name, Any) for name in parameters if name not in ("self", *more)}


def _options(kind: Any) -> Iterator[Any]:
    """The members of a union, without what annotates them."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _options(part)
    elif hasattr(kind, "__metadata__"):
        yield from _options(get_args(kind)[0])
    else:
        yield kind


def _ranges(kind: Any) -> Iterator[Range]:
    """The limits of numbers of this kind; none where one of its union has none."""
    yield from (x for x in getattr(kind, "__metadata__", ()) if isinstance(x, Range))
    if get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _ranges(part)


def _built(kind: Any) -> type | None:
    """The class that a setting of this kind comes to, or makes; None for plain data."""
    origin = get_origin(kind)
    if origin is abc.Callable:
        made = [x for x in _options(get_args(kind)[-1]) if inspect.isclass(x)]
        return made[0] if made else object
    if kind is abc.Callable or kind is Callable:
        return object
    if origin is type:
        return next((x for x in get_args(kind) if inspect.isclass(x)), object)
    if origin is not None or kind in (Any, None, type(None), object) or not inspect.isclass(kind):
        return None
    if issubclass(kind, _PLAIN) or kind in (list, tuple, dict, set):
        return None
    return kind


def _elements(kind: Any) -> Iterable[Any]:
    """Kinds of what a list, a tuple or the values of a dict hold."""
    origin = get_origin(kind)
    if origin in (dict, abc.Mapping):
        return get_args(kind)[1:]
    if origin in (list, tuple, set, abc.Sequence, abc.Iterable):
        return [x for x in get_args(kind) if x is not Ellipsis]
    return ()


def _holds_classes(kind: Any) -> bool:
    return any(_built(x) is not None or any(map(_holds_classes, _elements(x))) for x in _options(kind))


def _is_kind(found: Any, bases: list[type], own: bool) -> bool:
    """Whether it is a class of the kind, or (in one's own settings) a function that says that it makes one."""
    if own and (isinstance(found, tuple(bases)) or (object in bases and callable(found))):
        return True
    if own and inspect.isroutine(found):
        try:
            found = get_type_hints(found).get("return")
        except (NameError, TypeError):
            return False
    return inspect.isclass(found) and issubclass(found, tuple(bases)) and object not in bases


def _loaded(path: str) -> Any:
    """What somebody's own settings name; None where the parser has to say what is wrong."""
    module, _, name = front_door._path(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
