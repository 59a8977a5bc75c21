"""Returns along a trajectory. Legend: B batch, H horizon, T time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.types import SequenceBatch


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """TD(lambda) returns, R_t = r_t + d_t ((1 - lam) v_{t+1} + lam R_{t+1}), bootstrapped with the last value.

    Args:
        reward: (B, H) reward of the step from t to t + 1.
        discount: (B, H) discount of that step, zero where the episode ends.
        value: (B, H) value of the state that the step leads to.
        lam: 0 is one-step, 1 is Monte Carlo with a bootstrap at the end.

    Returns:
        (B, H) returns of the states that the steps start from.
    """
    step = reward + discount * (1 - lam) * value
    rewards, discounts = step.unbind(1), (discount * lam).unbind(1)
    following = value[:, -1]
    returns = []
    for t in reversed(range(reward.shape[1])):
        following = rewards[t] + discounts[t] * following
        returns.append(following)
    return torch.stack(returns[::-1], 1)


def follows(batch: SequenceBatch) -> Tensor:
    """Whether each record but the first follows the one before it, with a reward that is known; (B, T - 1)."""
    return ~(batch.is_first | batch.reward.isnan())[:, 1:]


def replayed_return(batch: SequenceBatch, value: Tensor, discount: float, lam: float) -> Tensor:
    """TD(lambda) returns (B, T - 1) of the states of real sequences but the last, from values (B, T) of all of them.

    An episode that ends by time limit goes on in truth: its last record bootstraps from its own value. So does a state
    from which a reward follows that nobody knows.
    """
    known = follows(batch)
    reward = torch.where(known, batch.reward[:, 1:], value[:, :-1])
    goes_on = (~batch.is_terminal[:, 1:] & known).to(value.dtype)
    return lambda_return(reward, discount * goes_on, value[:, 1:], lam)


class ReturnScale(nn.Module):
    """Running range of returns, 5th to 95th percentile, never below ``minimum`` (DreamerV3, equation 12)."""

    range: Tensor

    def __init__(self, decay: float = 0.99, minimum: float = 1.0) -> None:
        super().__init__()
        self.decay, self.minimum = decay, minimum
        self.register_buffer("range", torch.zeros(()))

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take in returns of any shape; gives the scale to divide by, ()."""
        flat = returns.detach().flatten().float()
        count = len(flat)
        low = flat.kthvalue(max(1, round(0.05 * count))).values
        high = flat.kthvalue(max(1, round(0.95 * count))).values
        spread = high - low
        # returns that are not finite end in a skipped step, and must not stay behind in here
        spread = torch.where(spread.isfinite(), spread, self.range)
        self.range.lerp_(spread, 1 - self.decay)
        return self.range.clamp_min(self.minimum)
