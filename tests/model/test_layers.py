from __future__ import annotations

import pytest
import torch

from worldmodel.model.layers import GRU, MLP


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_mlp_maps_the_last_dimension(layers: int) -> None:
    net = MLP(5, 3, 8, layers)
    x = torch.randn(2, 4, 5)
    out = net(x)
    assert out.shape == (2, 4, 3)
    torch.testing.assert_close(out[1, 2], net(x[1, 2:3])[0])
    assert sum(isinstance(m, torch.nn.Linear) for m in net.modules()) == layers + 1


def test_mlp_starts_at_zero_and_leaves_it() -> None:
    net = MLP(5, 3, 8, 2, zero=True)
    x = torch.randn(4, 5)
    assert not net(x).any()
    net(x).sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert net(x).any()


def test_gru_is_bounded_and_remembers_at_first() -> None:
    torch.manual_seed(0)
    cell = GRU(4, 6)
    h = torch.zeros(3, 6)
    for _ in range(100):
        h = cell(100 * torch.randn(3, 4), h)
    assert h.shape == (3, 6) and h.abs().max() <= 1
    torch.nn.init.zeros_(cell.linear.weight)  # gates at their bias
    memory = torch.ones(3, 6)
    torch.testing.assert_close(cell(torch.zeros(3, 4), memory), memory * torch.sigmoid(torch.tensor(1.0)))


def test_gru_carries_gradients_through_time() -> None:
    cell = GRU(4, 6)
    x = torch.randn(1, 4, requires_grad=True)
    h = cell(x, torch.zeros(1, 6))
    for _ in range(10):
        h = cell(torch.zeros(1, 4), h)
    assert torch.autograd.grad(h.sum(), x)[0].abs().sum() > 1e-5
