"""Who acts, as a config or a file names it: any checkpoint can be driven by its actor, by a planner, or at random."""

from __future__ import annotations

from pathlib import Path

import yaml

from worldmodel.control.controller import MakeController
from worldmodel.errors import UserError
from worldmodel.training.configs import find
from worldmodel.training.parser import Parser
from worldmodel.training.settings import reason


def read_policy(path: str | Path) -> MakeController:
    """Who acts, by a config such as policy/cem: what it gives as ``model.evaluate_with``.

    Raises:
        UserError: there is no such file, or it does not say who acts.
    """
    path = find(path, "policy")
    try:
        held = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise UserError(f"the policy file {path} is no YAML: {' '.join(str(cause).split())}") from cause
    model = held.get("model") if isinstance(held, dict) else None
    if not isinstance(model, dict) or not model.get("evaluate_with"):
        raise UserError(f"the policy file {path} does not say who acts: it has no model.evaluate_with")
    parser = Parser()
    parser.add_argument("--model.evaluate_with", type=MakeController)
    try:
        chosen = parser.parse_object({"model": {"evaluate_with": model["evaluate_with"]}})
        return parser.instantiate(chosen).model.evaluate_with
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
