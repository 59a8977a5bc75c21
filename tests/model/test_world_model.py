from __future__ import annotations

import math

import pytest
import torch

from tests import tiny
from tests.frozen import FrozenConv
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.world_model import WorldModel
from worldmodel.types import Observation, SequenceBatch

NAMES = {"complexity", "reconstruction", "reward", "cont", "dynamics", "representation"}


def squares(sequences: int = 4, length: int = 8) -> SequenceBatch:
    """A square that the actions push around; the reward is its place."""
    data = tiny.batch(sequences, length)
    image = torch.zeros_like(data.image)
    reward = torch.zeros_like(data.reward)
    place = torch.full((sequences, 2), 6.0)
    for t in range(length):
        place = (place + 3 * data.action[:, t] * ~data.is_first[:, t : t + 1]).clamp(0, 12)
        for b, (y, x) in enumerate(place.round().int().tolist()):
            image[b, t, :, y : y + 4, x : x + 4] = 255
        reward[:, t] = place[:, 0] / 6 - 1
    terminal = data.is_terminal.clone()
    terminal[0, -1] = True
    return data._replace(image=image, reward=reward, is_terminal=terminal)


def total(model: WorldModel, data: SequenceBatch) -> torch.Tensor:
    losses, _, _ = model.loss(data)
    return torch.stack([loss.mean() for loss in losses.values()]).sum()


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)])
@pytest.mark.parametrize("members", [1, 3])
def test_losses_by_name_and_shape(latents: Latents, members: int) -> None:
    model, data = tiny.world_model(latents, members), tiny.batch(3, 6)
    losses, state, metrics = model.loss(data)
    assert losses.keys() == NAMES
    assert all(loss.shape == (3, 6) and loss.isfinite().all() for loss in losses.values())
    assert state.feature.shape == (3, 6, model.feature_size)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert (metrics["epistemic"] > 1e-6) == (members > 1)
    # both heads start by knowing nothing
    torch.testing.assert_close(losses["reward"], torch.full((3, 6), math.log(63)))
    assert model.reward(state.feature).abs().max() == 0


@pytest.mark.parametrize("latents", [CategoricalLatents(4, 4), GaussianLatents(6)])
def test_one_batch_is_learned_by_heart(latents: Latents) -> None:
    model, data = tiny.world_model(latents), squares()
    model.fit_statistics(data.image.flatten(0, 1))
    before, _, _ = model.loss(data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        loss = total(model, data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after, _, _ = model.loss(data)
    for name, factor in {"reconstruction": 0.5, "reward": 0.6, "cont": 0.5}.items():
        assert after[name].mean() < factor * before[name].mean(), name


def test_members_come_to_agree_where_there_is_data() -> None:
    model, data = tiny.world_model(free_nats=0.0), squares()
    before = model.loss(data)[2]["epistemic"]
    optimizer = torch.optim.Adam(model.rssm.transition.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(data)[0]["dynamics"].mean().backward()
        optimizer.step()
    assert model.loss(data)[2]["epistemic"] < 0.3 * before


def test_kl_pulls_the_members_and_the_posterior_apart_from_each_other() -> None:
    model, data = tiny.world_model(free_nats=0.0), tiny.batch()
    losses, _, _ = model.loss(data)
    heads, posterior = model.rssm.transition.heads.weight, model.rssm.posterior.weight
    for name, pulled in (("dynamics", heads), ("representation", posterior)):
        gradient = torch.autograd.grad(losses[name].mean(), pulled, retain_graph=True)[0]
        assert gradient.any(), name
    assert torch.autograd.grad(losses["representation"].mean(), heads, retain_graph=True, allow_unused=True)[0] is None
    gradient = torch.autograd.grad(losses["dynamics"].mean(), heads)[0]
    assert gradient.view(tiny.MEMBERS, -1).abs().sum(1).min() > 0  # every member learns


def test_free_nats_stop_the_pull() -> None:
    model, data = tiny.world_model(free_nats=50.0), tiny.batch()
    losses, _, metrics = model.loss(data)
    assert metrics["kl"] < 50
    for name in ("dynamics", "representation"):
        assert (losses[name] == 50).all()
        gradient = torch.autograd.grad(
            losses[name].mean(), model.rssm.posterior.weight, allow_unused=True, retain_graph=True
        )
        assert gradient[0] is None or not gradient[0].any()


def test_bootstrap_weights_are_a_fixed_poisson_sample() -> None:
    episode = torch.arange(20000)
    weight = WorldModel.member_weights(episode, 5)
    assert torch.equal(weight, WorldModel.member_weights(episode, 5))
    assert torch.equal(weight[:2], WorldModel.member_weights(episode, 2))
    assert torch.equal(weight[:, 7:9], WorldModel.member_weights(torch.tensor([7, 8]), 5))
    assert WorldModel.member_weights(episode.view(100, 200), 5).shape == (5, 100, 200)
    for moment in (weight.mean(1), weight.var(1)):  # 1 and 1 for Poisson(1)
        torch.testing.assert_close(moment, torch.ones(5), atol=0.05, rtol=0)
    torch.testing.assert_close((weight == 0).float().mean(1), torch.full((5,), math.exp(-1)), atol=0.02, rtol=0)
    between = torch.corrcoef(weight) - torch.eye(5)
    assert between.abs().max() < 0.04
    following = torch.corrcoef(torch.stack([weight[0, :-1], weight[0, 1:]]))[0, 1]
    assert following.abs() < 0.04


def test_bootstrap_weighs_the_members_losses() -> None:
    data = tiny.batch(1, 6)
    # an episode that one member never sees
    weight = WorldModel.member_weights(torch.arange(200), tiny.MEMBERS)
    episode = int(((weight[0] == 0) & (weight[1] > 0)).int().argmax())
    data = data._replace(episode=torch.full_like(data.episode, episode))
    model = tiny.world_model(free_nats=0.0, bootstrap=True)
    loss = model.loss(data)[0]["dynamics"].mean()
    gradient = torch.autograd.grad(loss, model.rssm.transition.heads.weight)[0]
    size = gradient.view(tiny.MEMBERS, -1).abs().sum(1)
    assert size[0] == 0 and size[1] > 0


def test_decoding_a_share_is_unbiased() -> None:
    data = tiny.batch(4, 8)
    whole, part = tiny.world_model(), tiny.world_model(decode_fraction=0.25)
    feature = whole.observe(data, mode=True).state.feature
    error = whole._reconstruction(feature, data.image)
    few = [part._reconstruction(feature, data.image) for _ in range(400)]
    assert all((x > 0).sum() == 8 for x in few)
    torch.testing.assert_close(torch.stack(few).mean(0), error, rtol=0.5, atol=0)
    torch.testing.assert_close(torch.stack(few).mean(), error.mean(), rtol=0.02, atol=0)


@pytest.mark.parametrize("decode_fraction", [0.0, -0.5, 1.5])
def test_decoded_is_a_share(decode_fraction: float) -> None:
    with pytest.raises(ValueError, match="share in"):
        tiny.world_model(decode_fraction=decode_fraction)


def test_filter_is_observe() -> None:
    model, data = tiny.world_model(), tiny.batch(3, 4)
    whole = model.observe(data, mode=True).state
    state = model.rssm.initial(3)
    for t in range(4):
        state = model.filter(Observation(data.image[:, t], data.is_first[:, t]), data.action[:, t], state, mode=True)
    torch.testing.assert_close(state.feature, whole.feature[:, -1])


def test_embeddings_of_stored_features_are_those_of_the_images() -> None:
    model, data = tiny.world_model(encoder=FrozenConv()), tiny.batch(3, 4)
    features = model.encoder.features(data.image.flatten(0, 1)).unflatten(0, (3, 4))
    embed = model.embed(data.image)
    assert embed.shape == (3, 4, model.encoder.embed_dim)
    assert torch.equal(model.embed(data.image, features), embed)
    black = torch.zeros_like(data.image)  # which is not looked at
    stored = model.observe(data._replace(image=black, features=features), mode=True)
    assert torch.equal(stored.state.feature, model.observe(data, mode=True).state.feature)
    state, first, action = model.rssm.initial(3), data.is_first[:, 0], data.action[:, 0]
    seen = [Observation(data.image[:, 0], first), Observation(black[:, 0], first, features[:, 0])]
    one, other = (model.filter(x, action, state, mode=True) for x in seen)
    assert torch.equal(one.feature, other.feature)
    with pytest.raises(ValueError, match="PatchEncoder has no frozen features"):
        tiny.world_model().embed(data.image, features)


def test_measure_reaches_encoder_and_decoder() -> None:
    model, image = tiny.world_model(), tiny.batch().image.flatten(0, 1)
    model.fit_statistics(image)
    for pixels in (model.encoder.pixels, model.decoder.pixels):
        torch.testing.assert_close(pixels.mean, image.float().mean(0) / 255)


def test_continue_head_is_a_probability_of_going_on() -> None:
    model = tiny.world_model()
    feature = torch.randn(200, model.feature_size)
    is_terminal = feature[:, 0] > 0
    optimizer = torch.optim.Adam(model.cont.parameters(), 3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.cont.loss(feature, is_terminal).mean().backward()
        optimizer.step()
    going_on = model.cont(feature)
    assert (going_on > 0).all() and (going_on < 1).all()
    assert ((going_on < 0.5) == is_terminal).float().mean() > 0.95
