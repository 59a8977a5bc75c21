"""The player in a notebook."""

from __future__ import annotations

from typing import Any

from worldmodel.errors import UserError
from worldmodel.insight.player.component import script, style
from worldmodel.insight.player.messages import answer
from worldmodel.insight.player.session import PlayerSession

try:
    import anywidget
except ImportError as cause:
    raise UserError("the player in a notebook needs anywidget: pip install 'worldmodel[notebook]'") from cause


class Player(anywidget.AnyWidget):
    """A dream to drive in a cell, as ``worldmodel play`` shows it in a page.

    Args:
        session: the dream. Episodes of a replay come from ``from_replay``; a simulator to compare with, and episodes of
            it, from ``ReplayableEnv``.
    """

    _esm = script()
    _css = style()

    def __init__(self, session: PlayerSession) -> None:
        super().__init__()
        self.session = session
        self.on_msg(self._answer)

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        self.send(*answer(self.session, content))
