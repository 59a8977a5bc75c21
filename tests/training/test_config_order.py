"""Configurations are found by name, and shipped ones come to the same in whatever order they are named."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.conftest import CONFIGS, TINY
from worldmodel.errors import UserError
from worldmodel.training.agent import Agent
from worldmodel.training.configs import BASE, KINDS, arrange, find, merged, names
from worldmodel.training.settings import Settings, plain, read, training_parser, with_configs
from worldmodel.types import ActionSpec

# weights that have to be downloaded, or given
ABSENT = ("dinov2", "dinov3", "mobilenet", "mobilenetv4", "r3m", "siglip2", "vc1", "vip", "vit")
ENCODERS = [name for name in names("encoder") if not name.endswith(ABSENT)]
TASKS = [f"task/{name}" for name in ("cart_pole_v1", "point_reach", "reacher_easy", "walker_walk")]
SHORT = "model: {evaluate_with: &who {init_args: {planner: {init_args: {horizon: 2}}}}, collect_with: *who}"


def settings(given: list[str]) -> Settings:
    words = [word for name in given for word in ("--config", name)]
    return read(training_parser("fit", ""), [*words, "--run", "nowhere"])


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}.{key}").items()}


def read_only(given: list[str]) -> dict[str, Any]:
    """Settings as plain data, of which nothing is built."""
    parser = training_parser("fit", "")
    words = [word for name in given for word in ("--config", name)]
    config = parser.parse_args(with_configs([*words, "--run", "nowhere"]))
    return plain(parser, config)


def crossed() -> list[list[str]]:
    """One file of each kind: every one with each size, each transition with each encoder."""
    sizes = names("size")
    others = [TASKS, ENCODERS, names("transition"), names("policy"), names("representation")]
    left = {(size, name) for size in sizes for kind in others for name in kind}
    left |= {(encoder, transition) for encoder in ENCODERS for transition in names("transition")}
    left |= {(encoder, loss) for encoder in ENCODERS for loss in names("representation")}
    rng, found = random.Random(0), []
    while left:
        tried = [[rng.choice(kind) for kind in [sizes, *others]] for _ in range(200)]
        found.append(max(tried, key=lambda chosen: len(left & set(combinations(chosen, 2)))))
        left -= set(combinations(found[-1], 2))
    return found


@pytest.mark.parametrize("chosen", crossed(), ids="+".join)
def test_kinds_commute(chosen: list[str]) -> None:
    quick = [SHORT] if any("ByPlanner" in find(name).read_text() for name in chosen) else []
    quick += ["data: {size: 64}"] if "task/point_reach" in chosen else []  # its own pictures are for its own encoder
    shuffled = random.Random("+".join(chosen)).sample(chosen, len(chosen))
    one = settings([*chosen, *quick])
    assert one.dump() == read_only([*shuffled, *quick])
    agent = one.agent(ActionSpec(2, discrete=False))
    expected = yaml.safe_load(find(chosen[3]).read_text())["model"]["world_model"]["init_args"]["transition"]
    transition = agent.world_model.rssm.transition
    assert expected["class_path"].endswith(f".{type(transition).__name__}")
    assert transition.members == expected["init_args"]["members"]
    loss = agent.world_model.representation
    assert chosen[5].removeprefix("representation/") == ("decoder" if loss is None else loss.name)
    share = expected["init_args"].get("width_share", getattr(transition, "usual_share", 1))
    check_widths(agent, 1024 if "size/12m" in chosen else 256, share)


def check_widths(agent: Agent, deter: int, share: float) -> None:
    """What the size decides, whatever else was chosen."""
    rssm = agent.world_model.rssm
    assert (rssm.deter, rssm.from_action.out_features) == (deter, 256)
    assert 256 * share in {n for x in (*rssm.transition.parameters(), *rssm.transition.buffers()) for n in x.shape}
    control = agent.actor_critic
    for critic in [] if control is None else getattr(control.critic, "each", [control.critic]):
        assert critic.net[0].linear.out_features == 256


@pytest.mark.parametrize("transition", names("transition"))
def test_widths_flow_from_the_world_model(transition: str) -> None:
    narrow = "model: {world_model: {init_args: {width: 24, deter: 40}}}"  # and of the transition nothing
    made = settings([narrow, transition]).agent(ActionSpec(1, discrete=False)).world_model.rssm.transition
    sizes = {n for parameter in made.parameters() for n in parameter.shape}
    half = "half" in transition or getattr(made, "usual_share", 1) == 0.5
    assert (12 if half else 24) in sizes and 256 not in sizes


def test_a_width_of_its_own_is_the_transitions() -> None:
    own = "model: {world_model: {init_args: {transition: {init_args: {width: 40}}}}}"
    model = settings(["size/12m", "transition/independent", own]).agent(ActionSpec(1, discrete=False)).world_model
    assert model.rssm.transition.net[0].weight.shape[1] == 40  # (K, width, inputs)
    assert model.rssm.from_action.out_features == 256


def test_sizes_say_the_same_things() -> None:
    """So one may follow another and leave nothing of it behind."""
    sizes = {name: flat(yaml.safe_load(find(name).read_text())) for name in names("size")}
    kinds = (".class_path", ".propagation", "encoder.init_args.channels", "encoder.init_args.depth")
    kinds += ("decoder.init_args.channels", "decoder.init_args.depth")
    said = {name: {x for x in found if not x.endswith(kinds) and "latents" not in x} for name, found in sizes.items()}
    assert said["size/12m"] == said["size/laptop"]
    assert read_only(["size/12m", "size/laptop"]) == read_only(["base"])


def test_base_and_its_size_overlap_nowhere() -> None:
    base, laptop = (flat(yaml.safe_load(path.read_text())) for path in BASE)
    assert not base.keys() & laptop.keys()


def test_only_sizes_name_widths() -> None:
    for kind in set(KINDS) - {"size"}:
        for name in names(kind):
            text = find(name).read_text()
            assert not {"width", "deter", "channels", "depth"} & {
                key.split(".")[-1] for key in flat(yaml.safe_load(text))
            }


BASES = list(BASE)
TASK, SIZE, MOVE = (CONFIGS / f"{name}.yaml" for name in ("task/walker_walk", "size/12m", "transition/independent"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], BASES),
        ([BASE[0]], BASES),
        ([MOVE, TASK, SIZE], [*BASES, SIZE, TASK, MOVE]),
        ([MOVE, BASE[0]], [*BASES, MOVE]),
        ([TINY, MOVE, SIZE], [*BASES, TINY, SIZE, MOVE]),  # one's own file keeps its place
        ([MOVE, TINY, SIZE], [*BASES, MOVE, TINY, SIZE]),
        ([TASK, "data: {batch: 3}"], [*BASES, TASK, "data: {batch: 3}"]),
        ([BASE[1]], [*BASES, BASE[1]]),
    ],
)
def test_the_order_of_files(given: list[Path | str], expected: list[Path | str]) -> None:
    assert arrange(given) == expected


def test_a_whole_configuration_stands_alone(finished: Path) -> None:
    config = finished / "config.yaml"
    assert arrange([config, MOVE]) == [config, MOVE]
    assert arrange([BASE[0], config]) == [*BASES, config]  # unless base is asked for
    words = with_configs(["--run", str(finished), "--policy", "policy/cem"])
    assert words[:4] == ["--config", str(config), "--config", str(CONFIGS / "policy/cem.yaml")]


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("task/walker_walk", "", TASK),
        ("task/walker_walk.yaml", "", TASK),
        ("configs/task/walker_walk.yaml", "", TASK),  # also where there is no such folder
        ("base", "", BASE[0]),
        ("policy/cem", "policy", CONFIGS / "policy/cem.yaml"),
        ("cem", "policy", CONFIGS / "policy/cem.yaml"),
        (str(TINY), "", TINY),
    ],
)
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(name, kind) == path


@pytest.mark.parametrize(
    ("name", "kind", "hint"),
    [
        ("task/walker_wlak", "", "did you mean task/walker_walk or"),
        ("walker_walk", "", "did you mean task/walker_walk?"),
        ("transition/mppi", "", "did you mean policy/mppi?"),
        ("cme", "policy", "did you mean policy/cem?"),
        ("no/such.yaml", "", "configs/ holds those that are shipped"),
        ("no/such.yaml", "policy", "configs/policy holds those that are shipped"),
    ],
)
def test_names_that_are_not_there(name: str, kind: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        find(name, kind)
    assert name in str(raised.value) and hint in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "chosen", [[], ["task/reacher_easy"], ["encoder/conv", "size/12m"], ["transition/dropout", "size/laptop"]]
)
def test_merged_settings_are_those_of_the_command_line(chosen: list[str]) -> None:
    plain, read_ = flat(merged(*chosen)), flat(read_only(chosen or ["base"]))
    whole = {
        ".model.actor_critic.init_args.objective",
        ".model.actor_critic.init_args.propagation",
    }  # by class_path alone
    assert {key: read_.get(key) for key in plain.keys() - whole} == {key: plain[key] for key in plain.keys() - whole}
