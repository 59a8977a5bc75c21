"""The world model: encoder, RSSM with its ensemble, decoder, reward and continue heads, and their loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import Encoder
from encoders.ranges import Layers, NonNegativeFloat, PositiveFloat, PositiveShare, Width
from worldmodel.errors import UserError
from worldmodel.model.decoder import Decoder
from worldmodel.model.distributions import Latents, TwoHot
from worldmodel.model.layers import MLP
from worldmodel.model.representation import MakeRepresentation, RepresentationLoss
from worldmodel.model.rssm import RSSM, Posterior
from worldmodel.model.transitions import Transition
from worldmodel.model.vector_input import VectorInput
from worldmodel.types import LatentState, Observation, SequenceBatch

Metrics = dict[str, Tensor]
Losses = dict[str, Tensor]


class RewardHead(nn.Module):
    """p(r|s): two-hot over exponential bins, starting at zero (DreamerV3).

    Args:
        feature_size: F.
        width, layers: of the hidden layers.
        bins, limit: two-hot bins, the outermost at +-symexp(limit).
    """

    def __init__(
        self, feature_size: int, width: Width, layers: Layers = 1, bins: Width = 63, limit: PositiveFloat = 6.0
    ) -> None:
        super().__init__()
        self.net = MLP(feature_size, bins, width, layers, zero=True)
        self.twohot = TwoHot(bins, limit)

    def forward(self, feature: Tensor) -> Tensor:
        """Expected reward, (*B, F) -> (*B,)."""
        return self.twohot.mean(self.net(feature))

    def loss(self, feature: Tensor, reward: Tensor) -> Tensor:
        return self.twohot.loss(self.net(feature), reward)


class ContinueHead(nn.Module):
    """p(c|s): the probability that a state is not terminal."""

    def __init__(self, feature_size: int, width: int, layers: int = 1) -> None:
        super().__init__()
        self.net = MLP(feature_size, 1, width, layers)

    def forward(self, feature: Tensor) -> Tensor:
        """(*B, F) -> (*B,) in (0, 1)."""
        return self.net(feature).squeeze(-1).float().sigmoid()  # or bf16 rounds 0.997 to 0.9961

    def loss(self, feature: Tensor, is_terminal: Tensor) -> Tensor:
        logits = self.net(feature).squeeze(-1).float()
        return F.binary_cross_entropy_with_logits(logits, (~is_terminal).to(logits.dtype), reduction="none")


class WorldModel(nn.Module):
    """A latent POMDP learned from pixels.

    ``typical_uncertainty`` is the running mean of the epistemic uncertainty on the training data.

    Args:
        action_size: size A of an action.
        encoder: images to embeddings.
        latents: family of the latent distributions.
        transition: builds the ensemble from (deter, feature, action, params) sizes and the width.
        decoder: builds the decoder from the feature size; None for none (see ``represent``).
        reward: builds the reward head from the feature size and the width.
        deter: size D of the memory.
        width: hidden width of RSSM, heads, and the transition unless that has its own.
        free_nats: KL below which nothing is pulled, in nats over all latents (Kingma et al. 2016).
        decode_fraction: share of the frames that is reconstructed, a random subset each time (unbiased).
        deterministic: the posterior is g(o), a function of the image alone that is not drawn.
        bootstrap: members see resampled data: an episode's weight for a member is Poisson(1), fixed by its number.
    """

    typical_uncertainty: Tensor

    def __init__(
        self,
        action_size: int,
        encoder: Encoder,
        latents: Latents,
        transition: Callable[[int, int, int, int, int], Transition],
        decoder: Callable[[int], Decoder] | None,
        reward: Callable[[int, int], RewardHead] = RewardHead,
        deter: Width = 256,
        width: Width = 256,
        free_nats: NonNegativeFloat = 1.0,
        decode_fraction: PositiveShare = 1.0,
        bootstrap: bool = False,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < decode_fraction <= 1:
            raise ValueError(f"decode_fraction is a share in (0, 1], got {decode_fraction}")
        feature_size = deter + latents.size
        self.encoder = encoder
        ensemble = transition(deter, feature_size, action_size, latents.param_size, width)
        self.rssm = RSSM(
            encoder.embed_dim,
            action_size,
            latents,
            transition=ensemble,
            deter=deter,
            width=width,
            deterministic=deterministic,
        )
        self._modules["decoder"] = None if decoder is None else decoder(feature_size)  # a property says so if none
        self.representation: RepresentationLoss | None = None
        self.vector: VectorInput | None = None
        self.reward = reward(feature_size, width)
        self.cont = ContinueHead(feature_size, width)
        self.action_size, self.width = action_size, width
        self.free_nats, self.decode_fraction, self.bootstrap = free_nats, decode_fraction, bootstrap
        self.register_buffer("typical_uncertainty", torch.zeros(()))

    @property
    def decoder(self) -> Decoder:
        """What draws a state.

        Raises:
            UserError: there is none.
        """
        self.check_draws()
        return self._modules["decoder"]  # type: ignore[return-value]

    @property
    def draws(self) -> bool:
        """Whether there is a decoder."""
        return self._modules["decoder"] is not None

    def check_draws(self) -> None:
        """Find that there is a decoder.

        Raises:
            UserError: there is none.
        """
        if not self.draws:
            raise UserError(
                "this run has no decoder, so nothing of it can be drawn: one can be trained beside any representation "
                "loss, to look, without a part in what the model learns (model.world_model.decoder)"
            )

    def represent(self, make: MakeRepresentation) -> None:
        """Let states learn by this loss what an image shows; a decoder is fitted to them, or (``beside``) teaches too.

        Args:
            make: builds it from the sizes of a feature, an embedding and an action, and the hidden width.
        """
        self.representation = make(self.feature_size, self.encoder.embed_dim, self.action_size, self.width)

    def take_vector(self, size: int) -> None:
        """See ``size`` numbers beside each image, a second input of the posterior, and learn to reconstruct them."""
        self.vector = VectorInput(size, self.feature_size, self.width)
        self.rssm.widen(self.vector.embed_dim)

    @property
    def feature_size(self) -> int:
        return self.rssm.feature_size

    @property
    def latents(self) -> Latents:
        return self.rssm.latents

    def embed(self, image: Tensor, features: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        """What the posterior sees of an image and of the vector (*B, V) beside it, where the model takes one.

        Raises:
            ValueError: it does, and none is given; or as of ``embed_image``.
        """
        return self._beside(self.embed_image(image, features), vector)

    def _beside(self, embed: Tensor, vector: Tensor | None) -> Tensor:
        if self.vector is None:
            return embed
        if vector is None or vector.shape != (*embed.shape[:-1], self.vector.size):
            found = "none" if vector is None else f"{tuple(vector.shape)}"
            raise ValueError(f"beside each image this model takes a vector of {self.vector.size} numbers, got {found}")
        return torch.cat([embed, self.vector(vector)], -1)

    def embed_image(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """(*B, 3, H, W) uint8 -> (*B, E); from what the encoder's frozen part made of the images, where that is given.

        Raises:
            ValueError: features are given, and the encoder has no frozen part.
        """
        if features is not None:
            embed = self.encoder.adapt(features.flatten(0, image.dim() - 4))
        else:
            embed = self.encoder(image.flatten(0, -4))
        return embed.unflatten(0, image.shape[:-3])

    def observe(self, batch: SequenceBatch, state: LatentState | None = None, mode: bool = False) -> Posterior:
        """Filter real sequences: posterior states (B, T, ...) and all members' priors (K, B, T, P)."""
        embed = self.embed(batch.image, batch.features, batch.vector)
        return self.rssm.observe(embed, batch.action, batch.is_first, state=state, mode=mode)

    def filter(self, observation: Observation, action: Tensor, state: LatentState, mode: bool = False) -> LatentState:
        """Take in one more observation (N, ...) after ``action`` (N, A)."""
        embed = self.embed(observation.image, observation.features, observation.vector)
        return self.rssm.obs_step(state, action, embed, observation.is_first, mode=mode)

    def fit_statistics(self, image: Tensor) -> None:
        """Take pixel statistics of (N, 3, H, W) uint8 images, for encoder and decoder alike."""
        self.encoder.fit_statistics(image)
        if self.draws:
            self.decoder.fit_statistics(image)

    def loss(self, batch: SequenceBatch) -> tuple[Losses, LatentState, Metrics]:
        """All losses, each (B, T), the posterior states that were filtered on the way (B, T, ...), and metrics."""
        embed = self.embed_image(batch.image, batch.features)  # (B, T, E)
        posterior = self.rssm.observe(self._beside(embed, batch.vector), batch.action, batch.is_first)
        feature = posterior.state.feature  # (B, T, F)
        dynamics, representation, kl = self._kl(posterior, batch.episode)
        looked_at = feature if self.representation is None or self.representation.beside else feature.detach()
        known = ~batch.reward.isnan()  # data of others may hold none
        reward = self.reward.loss(feature, torch.where(known, batch.reward, 0.0))
        losses = {
            "reconstruction": self._reconstruction(looked_at, batch.image),
            "reward": torch.where(known, reward, 0.0),
            "cont": self.cont.loss(feature, batch.is_terminal),
            "dynamics": dynamics,
            "representation": representation,
        }
        complexity = self.rssm.transition.complexity()
        losses["complexity"] = torch.zeros_like(dynamics) if complexity is None else complexity.expand_as(dynamics)
        with torch.no_grad():
            uncertainty = self.latents.uncertainty(posterior.prior.detach())
            self._note(uncertainty.epistemic.float().mean())
            metrics = {
                "kl": kl.mean(),
                "epistemic": uncertainty.epistemic.mean(),
                "aleatoric": uncertainty.aleatoric.mean(),
            }
            metrics["posterior_entropy"] = self.latents.entropy(posterior.state.params.detach()).mean()
        if self.vector is not None:
            assert batch.vector is not None
            losses["vector"] = self.vector.loss(feature, batch.vector)
        if self.representation is not None:
            losses[self.representation.name], more = self.representation(feature, embed.detach(), batch)
            metrics |= more
        return losses, posterior.state, metrics

    def uncertainty(self, prior: Tensor) -> Tensor:
        """Epistemic uncertainty (*B,) of members' priors (K, *B, P), in multiples of its mean on the training data."""
        usual = self.typical_uncertainty
        return self.latents.uncertainty(prior).epistemic / torch.where(usual > 0, usual, 1.0)

    def _note(self, epistemic: Tensor) -> None:
        if not self.training:
            return
        started = self.typical_uncertainty > 0
        moved = torch.where(started, self.typical_uncertainty.lerp(epistemic, 0.01), epistemic)
        self.typical_uncertainty.copy_(torch.where(moved.isfinite(), moved, self.typical_uncertainty))

    def _kl(self, posterior: Posterior, episode: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KL balance (DreamerV2): each member is pulled to the posterior, the posterior a little to the members."""
        params, prior = posterior.state.params, posterior.prior  # (B, T, P), (K, B, T, P)
        each = self.latents.kl(params.detach(), prior)  # (K, B, T)
        weight = self.member_weights(episode, len(prior)) if self.bootstrap else 1.0
        dynamics = (weight * each.clamp_min(self.free_nats)).mean(0)
        back = self.latents.kl(params, prior.detach()).mean(0)
        return dynamics, back.clamp_min(self.free_nats), each.detach()

    @staticmethod
    def member_weights(episode: Tensor, members: int) -> Tensor:
        """Poisson(1) weights (K, *B) of episodes (*B), always the same for the same episode and member."""
        number = torch.arange(1, members + 1, device=episode.device).view(-1, *[1] * episode.dim())
        # an integer hash (Knuth's multiplicative, folded twice), then the quantile function of Poisson(1)
        mixed = (episode.unsqueeze(0) * 2654435761 + number * 40503) % 2**32
        mixed = ((mixed ^ (mixed >> 15)) * 2246822519) % 2**32
        uniform = ((mixed ^ (mixed >> 13)) % 2**24).float() / 2**24
        steps = torch.tensor([0.36788, 0.73576, 0.91970, 0.98101, 0.99634, 0.99941], device=episode.device)
        return torch.bucketize(uniform, steps, right=True).float()

    def _reconstruction(self, feature: Tensor, image: Tensor) -> Tensor:
        batch, length = feature.shape[:2]
        if not self.draws:
            return feature.new_zeros(batch, length)
        total = batch * length
        feature, image = feature.flatten(0, 1), image.flatten(0, 1)
        if self.decode_fraction == 1:
            return self.decoder.loss(feature, image).view(batch, length)
        count = max(1, round(total * self.decode_fraction))
        chosen = torch.randperm(total, device=feature.device)[:count]
        error = self.decoder.loss(feature[chosen], image[chosen])
        # frames left out count zero, the others more: the mean over (B, T) stays unbiased
        return error.new_zeros(total).index_put((chosen,), error * (total / count)).view(batch, length)
