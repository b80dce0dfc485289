"""Muon: steps of the right size and direction, for matrices and filters alike."""

import pytest
import torch

from depthup.models import DDFUpNet, DDFUpNetConfig
from depthup.muon import Muon, orthogonalise
from depthup.train_config import TrainConfig
from depthup.training import make_optimisers


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 50), (2, 50, 8), (1, 1, 20)])
def test_orthogonalised_matrices_have_singular_values_near_1(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100
    u, singular, vt = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalise(matrices)
    assert found.shape == matrices.shape
    kept = u.mT @ found @ vt.mT  # the singular vectors stay
    values = torch.diagonal(kept, dim1=1, dim2=2)
    assert (kept - torch.diag_embed(values)).abs().max() < 1e-3
    small = singular < 0.02 * singular.norm(dim=1, keepdim=True)  # five iterations do not bring these up
    assert values[~small].min() > 0.6
    assert values.max() < 1.3


def test_a_step_of_one_filter_bank_by_hand():
    p = torch.nn.Parameter(torch.zeros(4, 2, 3, 3))
    optimiser = Muon([p], lr=0.1, weight_decay=0.5, momentum=0.9)
    p.grad = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    optimiser.step()
    # momentum 0.1 g, looked ahead 0.1 g + 0.9 * 0.1 g: a multiple of g, whose size orthogonalising takes away
    expected = -0.1 * 0.2 * 18**0.5 * orthogonalise(p.grad.reshape(1, 4, 18))[0]
    torch.testing.assert_close(p.detach().reshape(4, 18), expected, rtol=1e-4, atol=1e-6)
    rms = p.detach().square().mean().sqrt()
    assert 0.5 * 0.1 * 0.2 < rms < 1.5 * 0.1 * 0.2  # about that of a step of Adam, times 0.2
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    with torch.no_grad():
        p.mul_(1e6)
    optimiser.step()
    torch.testing.assert_close(p.detach(), before * 1e6 * 0.95, rtol=1e-4, atol=1e-2)  # decayed by lr * weight_decay


def test_parameters_of_one_shape_do_not_mix():
    generator = torch.Generator().manual_seed(2)
    gradients = [torch.randn(6, 6, generator=generator) for _ in range(3)]
    together = [torch.nn.Parameter(torch.ones(6, 6)) for _ in gradients]
    alone = [torch.nn.Parameter(torch.ones(6, 6)) for _ in gradients]
    for p, q, g in zip(together, alone, gradients, strict=True):
        p.grad, q.grad = g, g.clone()
    together[1].grad = None
    Muon(together, lr=0.1).step()
    for q in alone:
        Muon([q], lr=0.1).step()
    torch.testing.assert_close(together[0], alone[0])
    torch.testing.assert_close(together[2], alone[2])
    assert torch.equal(together[1], torch.ones(6, 6))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="fewer than two dimensions"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("architecture", ["base", "paper", "pac-net", "djf"])
def test_every_parameter_has_one_optimiser(architecture):
    model = DDFUpNet(DDFUpNetConfig.named(architecture, 4))
    for name in ("muon", "adamw"):
        optimisers = make_optimisers(model, TrainConfig(scale=4, steps=1, architecture=architecture, optimiser=name))
        found = [id(p) for o in optimisers.values() for group in o.param_groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())
        assert list(optimisers) == (["adamw", "muon"] if name == "muon" else ["adamw"])
    shapes = {tuple(p.shape) for group in optimisers["adamw"].param_groups for p in group["params"]}
    assert any(len(shape) == 4 for shape in shapes)
    muon = make_optimisers(model, TrainConfig(scale=4, steps=1, architecture=architecture))["muon"]
    hidden = {id(p) for group in muon.param_groups for p in group["params"]}
    assert all(name.endswith(".weight") for name, p in model.named_parameters() if id(p) in hidden)
