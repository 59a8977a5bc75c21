"""A page that holds all that it shows: words, tables, pictures, films. Nothing is fetched, and nothing runs."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import NamedTuple

from worldmodel.errors import UserError


class Table(NamedTuple):
    """Rows of words and numbers; the first cell names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]


class Picture(NamedTuple):
    """A PNG file, and what it shows."""

    png: bytes
    text: str


class Film(NamedTuple):
    """An mp4 file, a PNG file to show until it is played, and what it shows."""

    mp4: bytes
    poster: bytes
    text: str


class Details(NamedTuple):
    """A text as it stands, such as a file's; folded up behind its title."""

    title: str
    text: str


Part = str | Table | Picture | Film | Details


class Section(NamedTuple):
    """A heading, and what stands below it; a string is a paragraph."""

    title: str
    parts: Sequence[Part]


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
p { max-width: 46em; }
img { max-width: 100%; }
video { display: block; max-width: 100%; background: #282828; }
figure { margin: 1em 0; overflow-x: auto; }
figcaption { color: #555; font-size: 0.9em; }
summary { cursor: pointer; }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 0.85em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.9em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""


def write_html(path: Path | str, sections: Sequence[Section], title: str = "Report") -> None:
    """One file that needs no other and opens without a network. It appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path)
    body = "\n".join([f"<h2>{html.escape(s.title)}</h2>\n" + "\n".join(map(_shown, s.parts)) for s in sections])
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = f"<h1>{html.escape(title)}</h1>\n{body}"
    text = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}\n</body></html>\n'
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a link would be followed
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as cause:
        if temporary.exists():
            temporary.unlink()
        raise UserError(f"cannot write the report {path}: {' '.join(str(cause).split())}") from cause


@singledispatch
def _shown(part: Part) -> str:
    raise TypeError(f"{type(part).__name__} is no part of a page")


@_shown.register
def _(part: str) -> str:
    return f"<p>{html.escape(part)}</p>"


@_shown.register
def _(part: Picture) -> str:
    text = html.escape(part.text)
    return f'<figure><img src="{_inline("image/png", part.png)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


@_shown.register
def _(part: Film) -> str:
    text = html.escape(part.text)
    source, poster = _inline("video/mp4", part.mp4), _inline("image/png", part.poster)
    film = f'<video controls loop muted playsinline poster="{poster}" src="{source}" aria-label="{text}"></video>'
    return f"<figure>{film}<figcaption>{text}</figcaption></figure>"


@_shown.register
def _(part: Details) -> str:
    title, text = html.escape(part.title), html.escape(part.text)
    return f"<details><summary>{title}</summary><pre>{text}</pre></details>"


@_shown.register
def _(part: Table) -> str:
    lines = [_row("th", part.head), *(_row("td", row) for row in part.rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _inline(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _row(tag: str, cells: Sequence[str | float]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(_cell(x))}</{tag}>" for x in cells) + "</tr>"


def _cell(x: str | float) -> str:
    if isinstance(x, str):
        return x
    return f"{x:,}" if isinstance(x, int) else f"{x:.3g}" if math.isfinite(x) else "\u2013"
