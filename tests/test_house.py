"""Rules of the house that a reader relies on, checked over the source itself."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "worldmodel").rglob("*.py")), *sorted((ROOT / "encoders").rglob("*.py"))]
NOT_OUR_WORDS = re.compile(r"\bdoubt|\bsettle\b|pursuit|payment|\bseat\b", re.IGNORECASE)


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_the_words_are_the_fields() -> None:
    texts = [
        p for folder in ("worldmodel", "encoders") for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".js")
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NOT_OUR_WORDS.search(line)
    ]
    assert texts and not found


def test_every_class_name_is_unique() -> None:
    names = Counter(node.name for _, node in nodes(ast.ClassDef) if isinstance(node, ast.ClassDef))
    assert names and not [name for name, count in names.items() if count > 1]


def test_a_file_is_read_in_one_sitting() -> None:
    assert not [str(p.relative_to(ROOT)) for p in SOURCES if len(p.read_text().splitlines()) > 300]
    assert len((ROOT / "worldmodel/training/train.py").read_text().splitlines()) <= 100


def test_no_call_has_more_than_four_positional_arguments() -> None:
    calls = [(where, node) for where, node in nodes(ast.Call) if isinstance(node, ast.Call)]
    long = [(where, node) for where, node in calls if len(node.args) > 4]
    # torch's own layers, and a factory that a config names and anybody may write
    found = [where for where, node in long if not ast.unparse(node.func).startswith(("nn.", "transition"))]
    assert calls and not found


def test_no_constructor_has_more_than_twelve_arguments() -> None:
    made = [
        (where, [*node.args.posonlyargs, *node.args.args[1:], *node.args.kwonlyargs])
        for where, node in nodes(ast.FunctionDef)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    assert made and not [where for where, arguments in made if len(arguments) > 12]
