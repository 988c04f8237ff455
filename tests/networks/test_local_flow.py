# SPDX-License-Identifier: Apache-2.0
"""What is somewhere else in every image is drawn, and the curves that draw it can be turned back."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_cadp.networks import ConditionalINN, fit_moments, refit_subspace
from monai_cadp.networks.local_flow import LocalFlow
from monai_cadp.networks.spline import KNOTS, SplineField

SIDE, SPOT = 12, 2


def moved(module, by):
    """Away from the identity, in every parameter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def field():
    torch.manual_seed(0)
    return moved(SplineField([(2, 3, 4)], width=8, num_maps=2, embedding_size=3), 0.3)


def embedding(size):
    return torch.eye(3)[torch.arange(size) % 3]


def test_a_new_spline_is_the_identity():
    field = SplineField([(1, 4, 6)], width=8, num_maps=2, embedding_size=0)
    x = 30 * torch.randn(4, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    (y,), log_det = field([x], c=[None])
    assert (y - x).abs().max() < 1e-4 and log_det.abs().max() < 1e-3


@pytest.mark.slow
def test_splines_rise_everywhere_and_their_slopes_are_those_of_the_curves(field):
    places = torch.linspace(-45, 45, 20001, dtype=torch.float64)
    x = places[:, None, None, None].expand(-1, 2, 3, 4)
    (y,), _ = field.double()([x], c=[embedding(1).double().expand(len(x), 3)])
    assert (y.diff(dim=0) > 0).all()
    rise = (y.diff(dim=0) / places.diff()[:, None, None, None]).log().flatten(1).sum(1)
    middle = ((x[1:] + x[:-1]) / 2).contiguous()
    _, log_det = field([middle], c=[embedding(1).double().expand(len(middle), 3)])
    # Where a small step crosses no knot, both are the same.
    assert (rise - log_det).abs().quantile(0.9) < 0.05
    field.float()


def test_a_spline_is_turned_back_inside_and_outside_of_its_knots(field):
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([size * torch.randn(30, 2, 3, 4, generator=generator) for size in (1, 30, 1e4)])
    x[0], x[1] = KNOTS[0], KNOTS[-1]
    c = [embedding(len(x))]
    (y,), log_det = field([x], c=c)
    (back,), log_det_back = field([y], c=c, rev=True)
    assert ((back - x).abs() / (1 + x.abs())).max() < 1e-3
    torch.testing.assert_close(log_det, -log_det_back, rtol=1e-2, atol=1e-1)


def test_what_lies_inside_cells_has_no_mean_there_and_nothing_is_lost():
    flow = LocalFlow([(2, 4, 6)], num_couplings=1, width=8, depth=0, num_maps=1, embedding_size=0)
    x = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    details = flow.inside_cells(x)
    assert torch.nn.functional.avg_pool2d(details, 2).abs().max() < 1e-6
    means = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 2), scale_factor=2)
    torch.testing.assert_close(details + means, x)


def spotted(count, seed):
    """Noise; every second image has a dark spot of 2 x 2 pixels, somewhere."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % 2
    for image in x[1::2]:
        row, column = torch.randint(SIDE - SPOT + 1, (2,), generator=generator).tolist()
        image[0, row : row + SPOT, column : column + SPOT] -= 3.0
    return x, labels


def darkest(x):
    """The darkest 2 x 2 pixels of each image, and the median over images."""
    return float(-torch.nn.functional.max_pool2d(-torch.nn.functional.avg_pool2d(x, SPOT, 1), 11).flatten().median())


def darkest_samples(num_local_couplings):
    torch.manual_seed(0)
    inn = ConditionalINN(
        (SIDE, SIDE),
        num_classes=2,
        num_levels=0,
        rank=8,
        num_couplings=2,
        width=16,
        num_maps=2,
        num_local_couplings=num_local_couplings,
    )
    x, labels = spotted(2000, 1)
    fit_moments(inn, lambda: [(x, labels)])
    optimizer = torch.optim.AdamW(inn.parameters(), lr=3e-3)
    for _ in range(300):
        batch = torch.randint(len(x), (64,))
        loss = -inn.log_prob(x[batch], labels[batch]).mean() / SIDE**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return [darkest(inn.decode(torch.randn(500, SIDE**2), torch.full((500,), label))) for label in (0, 1)]


@pytest.mark.slow
def test_a_spot_that_is_somewhere_else_in_every_image_is_drawn_by_the_local_flow_and_by_no_subspace():
    truth = [darkest(spotted(1000, 2)[0][label::2]) for label in (0, 1)]
    without, with_spot = darkest_samples(num_local_couplings=2)
    smeared = darkest_samples(num_local_couplings=0)
    assert truth[1] < -2.5
    assert with_spot < -1.5 and with_spot < 2 * without
    assert smeared[1] > -1.2


def blurred(count, seed):
    """Images of three broad patterns in widely different strengths, on noise."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.linspace(-1, 1, SIDE)
    patterns = torch.stack([line[:, None] + 0 * line, 0 * line[:, None] + line, line[:, None] * line])
    strengths = torch.randn(count, 3, generator=generator).exp()
    x = torch.einsum("bk,khw->bhw", strengths, patterns) + 0.1 * torch.randn(count, SIDE, SIDE, generator=generator)
    return x[:, None]


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    inn = ConditionalINN(
        (SIDE, SIDE), num_levels=0, rank=3, num_couplings=4, width=16, num_maps=2, num_local_couplings=2
    )
    x = blurred(2000, 1)
    fit_moments(inn, lambda: [(x, None)])
    optimizer = torch.optim.AdamW(inn.parameters(), lr=3e-3)
    for _ in range(100):
        loss = -inn.log_prob(x[torch.randint(len(x), (64,))]).mean() / SIDE**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return inn, x


@pytest.mark.slow
def test_the_subspace_behind_the_local_flow_is_made_white_and_unseen_images_become_likelier(trained):
    inn, x = trained
    again = copy.deepcopy(inn)
    refit_subspace(again, lambda: [(part, None) for part in x.split(500)])
    unseen = blurred(2000, 2)
    covariance = (again.encode(unseen)[0] @ again.whitening.basis).T.cov()
    assert (covariance - torch.eye(3)).abs().max() < 0.15
    assert again.log_prob(unseen).mean() > inn.log_prob(unseen).mean()


def test_a_network_whose_subspace_was_refitted_still_inverts_and_knows_its_volume(trained):
    inn, x = trained
    again = copy.deepcopy(inn)
    refit_subspace(again, lambda: [(x, None)])
    z, log_det = again.encode(x[:2])
    assert (again.decode(z) - x[:2]).abs().max() < 1e-4
    jacobian = torch.autograd.functional.jacobian(lambda y: again.encode(y)[0][0], x[:1])[:, 0].reshape(SIDE**2, -1)
    assert torch.linalg.slogdet(jacobian.double()).logabsdet == pytest.approx(float(log_det[0]), abs=1e-2)


def test_a_network_without_a_local_flow_is_not_refitted():
    inn = ConditionalINN((4, 4))
    before = inn.fingerprint()
    refit_subspace(inn, lambda: [(torch.rand(8, 1, 4, 4), None)])
    assert inn.fingerprint() == before


@pytest.mark.parametrize(
    "batches, message", [([], "No data came"), ([(torch.full((4, 1, 4, 4), torch.nan), None)], "NaN")]
)
def test_a_refit_without_usable_data_changes_nothing(refused, batches, message):
    inn = ConditionalINN((4, 4), num_levels=0, rank=2, num_maps=1, num_local_couplings=1)
    before = inn.fingerprint()
    with refused(ValueError, message):
        refit_subspace(inn, lambda: batches)
    assert inn.fingerprint() == before


@pytest.mark.parametrize("kind", [{"num_classes": 2}, {"condition_size": 1}])
def test_a_refit_takes_out_what_the_condition_says(kind):
    inn = ConditionalINN((SIDE, SIDE), num_levels=0, rank=3, num_couplings=0, num_maps=2, num_local_couplings=2, **kind)
    condition = torch.arange(2000) % 2
    x = blurred(2000, 1) + 3.0 * condition[:, None, None, None]
    condition = condition if "num_classes" in kind else condition[:, None].float()
    batches = [(x[part], condition[part]) for part in torch.arange(2000).split(400)]
    fit_moments(inn, lambda: batches)
    with torch.no_grad():
        # As a training leaves it: the class moves the subspace.
        inn.whitening.inside.mean += 0.5
        inn.whitening.inside.slope += 0.5
    refit_subspace(inn, lambda: batches)
    inside = inn.encode(x, condition)[0] @ inn.whitening.basis
    for group in (0, 1):
        assert inside[condition.flatten() == group].mean(0).abs().max() < 0.1
