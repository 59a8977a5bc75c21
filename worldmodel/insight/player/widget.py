"""The player in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worldmodel.errors import UserError
from worldmodel.insight.player.component import script, style
from worldmodel.insight.player.drivers import Driver
from worldmodel.insight.player.messages import answer
from worldmodel.insight.player.reality import Reality, Recorded
from worldmodel.insight.player.session import PlayerSession
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec

try:
    import anywidget
except ImportError as cause:
    raise UserError("the player in a notebook needs anywidget: pip install 'worldmodel[notebook]'") from cause


class Player(anywidget.AnyWidget):
    """A dream to drive in a cell, as ``worldmodel play`` shows it in a page.

    Args:
        world_model, action, episodes, drivers, reality, context, seed: see PlayerSession. Episodes of a replay come
            from ``from_replay``; a simulator to compare with, and episodes of it, from ``Reality``.

    Raises:
        ValueError: see PlayerSession.
    """

    _esm = script()
    _css = style()

    def __init__(
        self,
        world_model: WorldModel,
        action: ActionSpec,
        episodes: Sequence[Recorded],
        drivers: Mapping[str, Driver] | None = None,
        reality: Reality | None = None,
        context: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.session = PlayerSession(world_model, action, episodes, drivers, reality, context, seed)
        self.on_msg(self._answer)

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        self.send(*answer(self.session, content))
