"""Who acts, as a config or a file names it: any checkpoint can be driven by its actor, by a planner, or at random."""

from __future__ import annotations

from pathlib import Path

from worldmodel.control.controller import MakeController
from worldmodel.errors import UserError
from worldmodel.training.allowed import check_value
from worldmodel.training.configs import find
from worldmodel.training.parser import Parser
from worldmodel.training.settings import reason
from worldmodel.training.yaml_files import read_yaml


def read_policy(path: str | Path, trust_code: bool = False) -> MakeController:
    """Who acts, by a config such as policy/cem: what it gives as ``model.evaluate_with``.

    Args:
        path: of the file, or the name of one that is shipped.
        trust_code: it may name any class; without it only those of this package.

    Raises:
        UserError: there is no such file, or it does not say who acts, or names code without trust.
    """
    path = find(path, "policy")
    held = read_yaml(path, f"the policy file {path}")
    model = held.get("model") if isinstance(held, dict) else None
    if not isinstance(model, dict) or not model.get("evaluate_with"):
        raise UserError(f"the policy file {path} does not say who acts: it has no model.evaluate_with")
    check_value(model["evaluate_with"], MakeController, "model.evaluate_with", "" if trust_code else str(path))
    parser = Parser()
    parser.add_argument("--model.evaluate_with", type=MakeController)
    try:
        chosen = parser.parse_object({"model": {"evaluate_with": model["evaluate_with"]}})
        return parser.instantiate(chosen).model.evaluate_with
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
