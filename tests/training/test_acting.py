"""Who acts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from tests import tiny
from tests.training.conftest import CONFIGS, words
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.controller import ActorController, RandomController
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners import CEM, MPPI, GradientPlanner, Planner, RandomShooting
from worldmodel.control.planners.ilqr import ILQR
from worldmodel.control.propagation import Mixture
from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.types import ActionSpec

SPEC = ActionSpec(tiny.ACTION, False)


def control(action: ActionSpec, feature_size: int) -> ActorCritic:
    return ActorCritic(action, feature_size, ThroughModel(), Mixture(), width=16, starts=8, horizon=3)


def agent(**settings: object) -> Agent:
    return Agent(SPEC, lambda size: tiny.world_model(), **{"actor_critic": control, **settings})


def planning(planner: Planner, **settings: object) -> partial[PlannerController]:
    return partial(PlannerController, planner=planner, **settings)


@pytest.mark.parametrize(
    ("planner", "name"),
    [
        (RandomShooting(3), "random_shooting"),
        (CEM(3), "cem"),
        (MPPI(3), "mppi"),
        (GradientPlanner(3), "gradient"),
        (ILQR(3), "ilqr"),
    ],
)
def test_names_say_what_was_made_use_of(planner: Planner, name: str) -> None:
    model = tiny.world_model()
    made = control(SPEC, model.feature_size)

    def named(actor_critic: ActorCritic | None, **settings: object) -> str:
        return PlannerController(model, actor_critic, SPEC, planner=planner, **settings).name

    assert named(made) == f"{name}+actor+value"
    assert named(made, proposals=0) == f"{name}+value"
    assert named(made, value=False) == f"{name}+actor"
    assert named(None) == name  # there is nothing to make use of
    assert named(None, label="mine") == "mine"


def test_who_collects_and_who_is_evaluated() -> None:
    usual = agent()
    for explore in (True, False):
        policy = usual.policy(explore)
        actor = policy.controller
        assert isinstance(actor, ActorController) and policy.explore == explore and actor.name == "actor"
    mixed = agent(collect_with=RandomController, evaluate_with=planning(CEM(3), noise=0.2, every=2, elites=1))
    assert mixed.policy(explore=True).controller.name == "random"
    planner = mixed.policy(explore=False).controller
    assert isinstance(planner, PlannerController)
    assert (planner.noise, planner.every, planner.elites) == (0.2, 2, 1)
    assert planner.actor is mixed.actor_critic.actor and planner.critic is mixed.actor_critic.critic
    assert planner.planner.discount == mixed.actor_critic.discount


def test_a_check_draws_nothing() -> None:
    model = tiny.world_model()
    made = control(SPEC, model.feature_size)
    before = torch.get_rng_state()
    PlannerController(model, made, SPEC, planner=CEM(3)).check()
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_actor_a_planner_has_to_act() -> None:
    with pytest.raises(UserError, match=r"this run has no actor: give model\.evaluate_with"):
        agent(actor_critic=None)
    by_planner = planning(CEM(3))
    with pytest.raises(UserError, match="this run has no actor"):
        agent(actor_critic=None, collect_with=by_planner, evaluate_with=ActorController)
    alone = agent(actor_critic=None, collect_with=by_planner, evaluate_with=by_planner)
    planner = alone.policy(explore=True).controller
    assert isinstance(planner, PlannerController) and planner.actor is None and planner.critic is None


def test_without_an_actor_the_world_model_s_losses_are_all() -> None:
    by_planner = planning(CEM(3))
    alone = agent(actor_critic=None, collect_with=by_planner, evaluate_with=by_planner, weights={"reward": 2.0})
    total, metrics = alone.losses(tiny.batch())
    names = {name.removeprefix("loss/") for name in metrics if name.startswith("loss/")}
    assert names == {*alone.weights, "total"} and "complexity" in names and "actor" not in names
    expected = sum(weight * metrics[f"loss/{name}"] for name, weight in alone.weights.items())
    torch.testing.assert_close(total.detach(), expected)
    assert list(alone.setup().parts) == ["world_model"] and len(alone.optimizer.adam.param_groups) == 1
    assert [group["name"] for group in agent().setup().optimizer.adam.param_groups] == [
        "world_model",
        "actor",
        "critic",
    ]
    with pytest.raises(UserError, match="no loss is called critic"):
        agent(actor_critic=None, collect_with=by_planner, evaluate_with=by_planner, weights={"critic": 2.0})


def test_planners_see_the_gradient_when_they_are_evaluated(finished: Path, tmp_path: Path) -> None:
    near = {"init_args": {"planner": {"init_args": {"horizon": 2}}}}
    (tmp_path / "near.yaml").write_text(yaml.safe_dump({"model": {"evaluate_with": near}}))
    for name in ("gradient", "mppi"):
        given = ["--policy", f"{CONFIGS}/policy/{name}.yaml", "--policy", str(tmp_path / "near.yaml")]
        run(["validate", "--run", str(finished), *given, "--fabric.precision", "bf16-mixed"])
    rows = [json.loads(line) for line in (finished / "validations.jsonl").read_text().splitlines()]
    assert [row["policy"] for row in rows] == ["gradient+actor+value", "mppi+actor+value"]
    assert all(len(row["returns"]) == 2 for row in rows)


def test_a_run_without_an_actor_is_resumed(tmp_path: Path) -> None:
    given = ["--policy", f"{CONFIGS}/policy/planet.yaml", "--schedule.evaluate_every", "9"]
    near = ["--model.collect_with.init_args.planner.init_args.horizon", "2"]
    run(words(tmp_path, *given, *near, "--schedule.rounds", "1"))
    run(["fit", "--run", str(tmp_path), "--schedule.rounds", "2"])
    checkpoint = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert checkpoint["updates"] == 8 and not any("actor" in name for name in checkpoint["state_dict"])
    assert len(checkpoint["optimizer"]["adam"]["param_groups"]) == 1
