"""What a browser runs and how it looks: the same text in page and notebook, with no build step and no network."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"


def script() -> str:
    """One ES module, as a notebook wants it: its default export renders a player into an element."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("drawing.js", "keys.js", "player.js"))


def style() -> str:
    return (STATIC / "player.css").read_text(encoding="utf-8")
