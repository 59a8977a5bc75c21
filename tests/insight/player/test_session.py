from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.insight.player.conftest import CHOICES, make_session, parted, reality
from worldmodel.commands import play
from worldmodel.control.controller import ActorController
from worldmodel.control.imagine import imagine
from worldmodel.experience.collector import RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import InProcess
from worldmodel.insight.player.replayable import ReplayableEnv, from_replay
from worldmodel.insight.player.session import Frame, PlayerSession
from worldmodel.insight.uncertainty import pixel_disagreement
from worldmodel.model.bayesian import DropoutTransition
from worldmodel.types import ActionSpec, LatentState

RIGHT = [1.0, 0.25]


def equal(one: Frame, other: Frame) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@torch.no_grad()
def test_the_dream_is_what_imagination_gives_for_the_same_actions() -> None:
    session = make_session()
    model, episode = session._world_model, session.episodes[1]
    frames = [session.reset(1, 9), *(session.step(a) for a in ([1.0, 0.25], [-0.5, 0.0], [3.0, -1.0]))]
    image, action = (torch.from_numpy(x[None, :10]) for x in (episode.image, episode.action))
    first = torch.arange(10)[None] == 0
    seen = model.rssm.observe(model.embed(image), action, first, mode=True)
    start = LatentState(*(x[:, -1] for x in seen.state))
    wanted = torch.tensor([[1.0, 0.25], [-0.5, 0.0], [1.0, -1.0]])  # within limits
    left = iter(wanted.unsqueeze(1))
    path = imagine(model, lambda _: next(left), start, 3, mode=True)
    pictures = model.decoder.image(path.state.feature)[0].permute(0, 2, 3, 1)
    for t, frame in enumerate(frames):
        assert frame.step == t and np.array_equal(frame.image, pictures[t].numpy())
    torch.testing.assert_close(torch.tensor([f.reward for f in frames[1:]]), path.reward[0])
    torch.testing.assert_close(torch.tensor([f.uncertainty for f in frames[1:]]), path.uncertainty[0])
    torch.testing.assert_close(torch.tensor([f.cont for f in frames[1:]]), path.cont[0])
    assert np.array_equal([f.action for f in frames[1:]], wanted.numpy())
    torch.testing.assert_close(torch.tensor(frames[0].uncertainty), model.uncertainty(seen.prior)[0, -1])

    deter, prior = model.rssm.img_step(LatentState(*(x[:, 2] for x in path.state)), wanted[2:])
    spread = frames[3].spread
    assert spread.shape == (tiny.SIZE, tiny.SIZE) and spread.max() > 0
    assert spread.mean() == pytest.approx(float(pixel_disagreement(model, deter, prior)), rel=1e-4)
    assert 0 < session.strong < 4 * 0.5


def test_one_member_has_no_spread() -> None:
    real = reality()
    spec = ActionSpec(2, False)
    session = PlayerSession(parted(members=1), spec, [real.record(RandomPolicy(spec), "one")], reality=real)
    assert not session.reset().spread.any() and not session.step(RIGHT).spread.any() and session.strong == 1


@pytest.mark.parametrize("record", [0, 1, 13, 30])
def test_the_truth_is_the_episode_again_when_its_actions_are(record: int) -> None:
    session = make_session()
    session.reset(1, 3)
    session.step(RIGHT)  # the simulator is elsewhere by now
    episode = session.episodes[0]
    frame = session.reset(0, record)
    for t in range(record, len(episode.image)):
        if t > record:
            frame = session.step(episode.action[t])
        assert frame.truth is not None and np.array_equal(frame.truth.transpose(2, 0, 1), episode.image[t])
        assert frame.real_reward == pytest.approx(float(episode.reward[t]))
        assert frame.ended == (t == len(episode.image) - 1)
    after = session.step(RIGHT)
    assert after.truth is None and after.real_reward is None and after.ended  # the dream goes on


def test_other_actions_lead_elsewhere() -> None:
    session = make_session()
    session.reset(0, 5)
    frames = [session.step(RIGHT) for _ in range(10)]
    assert frames[-1].truth is not None
    assert not np.array_equal(frames[-1].truth.transpose(2, 0, 1), session.episodes[0].image[15])
    assert frames[-1].truth[:, 12:, 0].max() == 255  # the square came to the right border


def test_records_of_a_replay_have_no_truth_beside_them(tmp_path: object) -> None:
    session = make_session()
    replay = Replay(str(tmp_path), image_shape=(3, tiny.SIZE, tiny.SIZE), action_size=2)
    for episode in session.episodes:
        records = np.zeros(len(episode.image), replay.dtype)
        records["image"], records["action"], records["reward"] = episode.image, episode.action, episode.reward
        records["is_first"][0] = True
        replay.add_episode(records)
    stored = from_replay(replay, 1)
    assert [x.name for x in stored] == ["episode 1"]
    assert np.array_equal(stored[0].image, session.episodes[1].image)
    again = PlayerSession(session._world_model, session.action, stored, reality=reality())
    frame, wanted = again.reset(0, 4), session.reset(1, 4)
    assert equal(frame, wanted)
    frame = again.step(RIGHT)
    assert frame.truth is None and frame.real_reward is None and not frame.ended
    assert np.array_equal(frame.image, session.step(RIGHT).image)


def test_the_actor_drives_by_its_mode_and_discrete_actions_are_one_hot() -> None:
    session = make_session(CHOICES)
    session.reset(0, 2)
    assert session.step([0.1, 0.0, 0.7, 0.2, 0.0]).action.tolist() == [0, 0, 1, 0, 0]
    session.drive("actor")
    actor = session.controllers["actor"]
    assert isinstance(actor, ActorController) and session._state is not None
    wanted = actor.actor.mode(session._state.feature)[0]
    frame = session.step()
    assert frame.driver == "actor" and frame.action.tolist() == wanted.tolist()
    assert frame.truth is not None


def test_the_planner_plans_from_the_dreamt_state_and_a_reset_forgets_its_plan() -> None:
    session = make_session()
    planner = session.controllers["planner"]
    session.drive("planner")
    for _ in range(2):
        session.reset(0, 4)
        state, draws = session._state, session._random
        assert state is not None
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(draws)
            wanted, memory = planner.act(state, planner.initial(1))
        assert session.step().action.tolist() == wanted[0].tolist()
        assert all(torch.equal(a, b) for a, b in zip(session._memory, memory, strict=True)) and memory.plan.any()


def test_what_is_drawn_is_the_session_s_own() -> None:
    def film(seed: int) -> list[Frame]:
        session = make_session(seed=seed)
        session.drive("planner")
        return [session.reset(0, 4), *(session.step() for _ in range(5))]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    frames = film(0)
    torch.manual_seed(6)
    assert all(map(equal, frames, film(0)))
    assert not all(map(equal, frames, film(1)))
    session = make_session()
    torch.set_rng_state(before)
    session.drive("planner")
    session.reset()
    session.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_drawn_members_last_for_a_dream() -> None:
    torch.manual_seed(0)
    sizes = (16, 32, 2, 16)  # of the tiny model
    session = make_session(transition=DropoutTransition(*sizes, members=tiny.MEMBERS, width=16, rate=0.5))
    transition = session._world_model.rssm.transition
    session.drive("planner")
    session.reset(0, 4)
    before = transition.drawn()["masks"]
    session.step()  # the planner draws its own
    transition.draw()  # somebody else dreams
    state = session._state
    assert state is not None
    frame = session.step()
    assert torch.equal(transition.drawn()["masks"], before)
    with torch.no_grad():
        _, prior = session._world_model.rssm.img_step(state, torch.from_numpy(frame.action)[None])
        assert frame.uncertainty == float(session._world_model.uncertainty(prior)[0])
    session.reset(0, 4)
    assert not torch.equal(transition.drawn()["masks"], before)


@pytest.mark.parametrize("begin", [0, 4])
def test_shown_the_real_frame_again_it_is_where_a_reset_would_be(begin: int) -> None:
    session, other = make_session(context=10), make_session(context=10)
    episode = session.episodes[0]
    session.reset(0, begin)
    for t in range(begin + 1, begin + 16):
        dreamt = session.step(episode.action[t])
    shown, wanted = session.show(), other.reset(0, begin + 15)
    assert equal(shown, wanted) and shown.step == 0 and shown.driver == "record"
    assert not np.array_equal(shown.image, dreamt.image) and np.array_equal(shown.truth, dreamt.truth)
    assert all(equal(session.step(RIGHT), other.step(RIGHT)) for _ in range(3))
    assert equal(session.reset(0, begin), other.reset(0, begin))
    assert equal(session.show(), other.reset(0, begin))


def test_there_has_to_be_a_real_frame_to_show() -> None:
    session = make_session()
    with pytest.raises(ValueError, match="no dream has begun: reset first"):
        session.show()
    session.reset(0, 31)
    assert session.step(RIGHT).ended
    with pytest.raises(ValueError, match="there is no real frame to show: the real episode is over"):
        session.show()
    alone = PlayerSession(session._world_model, session.action, [session.episodes[0]._replace(number=None)])
    alone.reset(0, 3)
    alone.step(RIGHT)
    with pytest.raises(ValueError, match="there is no real frame to show: no simulator runs here"):
        alone.show()


def test_a_dream_that_is_behind_the_last_picture_is_lost_and_stays_so() -> None:
    session = make_session()
    frames = [session.reset(0, 4), session.step(RIGHT)]
    last, session._last = session._last, torch.zeros(1, 3, tiny.SIZE, tiny.SIZE)  # near to a dark world
    frames.append(session.step(RIGHT))
    session._last = last
    frames += [session.step(RIGHT) for _ in range(30)]
    assert [frame.behind for frame in frames] == [False, False, True] + [False] * 26 + [None] * 4  # it is over
    assert [frame.lost for frame in frames] == [False, False] + [True] * 31
    assert not session.reset(0, 4).lost


def test_by_the_time_truth_and_dream_have_parted_the_shipped_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "_EPISODES", 1)
    shipped = play.sessions(str(Path(__file__).parents[3] / "notebooks/run"), None, policy=None, seed=0)()
    shipped.drive("actor")
    frames = [shipped.reset(), *(shipped.step() for _ in range(45))]
    lost = [frame.lost for frame in frames]
    said = [frame.judgement is not None and not frame.judgement.trusted for frame in frames]
    behind = [bool(frame.behind) for frame in frames]
    error = [frame.error or 0 for frame in frames]
    assert 5 < lost.index(True) < 40  # at first it is worth looking at
    assert lost == sorted(lost)  # and what is lost stays lost, also where the calibration ends
    assert said.index(True) <= (behind.index(True) if any(behind) else len(frames))  # before it is seen
    assert max(error[: lost.index(True)]) < max(error[lost.index(True) :])


def test_a_context_forgets_what_was_before_it() -> None:
    session = make_session(context=3)
    episode = session.episodes[0]
    cut = episode._replace(image=episode.image.copy(), number=None)
    cut.image[:8] = 0
    other = PlayerSession(session._world_model, session.action, [cut], context=3)
    assert np.array_equal(session.reset(0, 10).image, other.reset(0, 10).image)
    assert not np.array_equal(session.reset(0, 9).image, other.reset(0, 9).image)


def test_mistakes() -> None:
    session = make_session()
    model, spec, episodes = session._world_model, session.action, session.episodes
    with pytest.raises(ValueError, match="no dream has begun: reset first"):
        session.step(RIGHT)
    for where in ((2, 0), (-1, 0), (0, 32), (0, -1)):
        with pytest.raises(ValueError, match="must be from 0 to"):
            session.reset(*where)
    session.reset()
    for action in ([1.0], [1.0, np.nan], [[1.0, 0.0]]):
        with pytest.raises(ValueError, match="an action is 2 finite numbers"):
            session.step(action)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="you drive: give an action"):
        session.step()
    with pytest.raises(ValueError, match="nobody called 'plannr' can drive: did you mean planner"):
        session.drive("plannr")
    with pytest.raises(ValueError, match="nobody called '' can drive: there is me, actor, planner"):
        session.drive("")
    with pytest.raises(ValueError, match="give at least one episode"):
        PlayerSession(model, spec, [])
    half = episodes[0]._replace(image=episodes[0].image.astype(np.float32) / 255)
    with pytest.raises(ValueError, match=r"images must be uint8 \(L, 3, H, W\), got float32 \(33, 3, 16, 16\)"):
        PlayerSession(model, spec, [half])
    with pytest.raises(ValueError, match=r"actions must be \(L, 3\), L 2 or more, got \(33, 2\)"):
        PlayerSession(model, ActionSpec(3, False), episodes)
    with pytest.raises(ValueError, match="context must be at least 1"):
        PlayerSession(model, spec, episodes, context=0)
    with pytest.raises(ValueError, match="no controller can be called 'me'"):
        PlayerSession(model, spec, episodes, {"me": session.controllers["actor"]})
    with pytest.raises(ValueError, match="reality is one environment, got 2"):
        ReplayableEnv(InProcess("worldmodel.experience.toy:PointReach", 2, size=tiny.SIZE))
    with pytest.raises(ValueError, match="cannot be played again"):
        reality().begin(episodes[0]._replace(number=None), 3)
