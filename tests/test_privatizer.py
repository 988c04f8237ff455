# SPDX-License-Identifier: Apache-2.0
"""Nothing of an image passes the privatizer but what its mechanism lets through."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from scipy.stats import beta

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent, PaperINN, Provenance, fit_moments
from monai_cadp.privacy import (
    GaussianMechanism,
    LaplaceMechanism,
    Mechanism,
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
)

SHAPE = (1, 4, 4)
CONDITIONS = {"none": {}, "class": {"num_classes": 3}, "vector": {"condition_size": 2}}


class Recorder(Mechanism):
    """Returns what it is told to, and remembers what it was given; promises nothing."""

    epsilon = 1.0

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    def _randomize(self, latents, generator):
        self.seen.append(latents.clone())
        return self.answer(latents)


def constant():
    return Recorder(torch.zeros_like)


def identity():
    return Recorder(torch.clone)


def images(count, seed=0, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def conditions(kind, count):
    generator = torch.Generator().manual_seed(7)
    return {
        "none": None,
        "class": torch.arange(count) % 3,
        "vector": torch.randn(count, 2, generator=generator),
    }[kind]


@pytest.fixture(scope="module")
def networks():
    """A fitted network for every kind of condition, no coupling of which is the identity."""
    torch.manual_seed(0)
    made = {}
    for kind, options in CONDITIONS.items():
        inn = ConditionalINN(SHAPE[1:], 1, **options, num_levels=1, rank=4, width=16, num_couplings=3, detail_width=8)
        fit_moments(inn, lambda kind=kind: [(images(400), conditions(kind, 400))])
        with torch.no_grad():
            for parameter in inn.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        made[kind] = inn
    return made


@pytest.fixture
def inn(networks):
    return copy.deepcopy(networks["class"])


@pytest.fixture(params=CONDITIONS)
def setting(request, networks):
    return copy.deepcopy(networks[request.param]), conditions(request.param, 6)


def basis(inn, k=5):
    return ContentBasis.fit(inn, k, num_samples=128)


def mean_and_deviation(x):
    return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)


def declared(num_candidates=256):
    return DeclaredContent(mean_and_deviation, num_candidates=num_candidates)


# --- what comes out ---------------------------------------------------------------------------------------------------

MECHANISMS = {
    "SubsetSelection": lambda: SubsetSelection(epsilon=4.0, num_candidates=64),
    "GaussianMechanism": lambda: GaussianMechanism(epsilon=4.0, delta=1e-5, clipping_bound=2.0),
    "LaplaceMechanism": lambda: LaplaceMechanism(epsilon=4.0, clipping_bound=2.0),
    "PriorOnly": PriorOnly,
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_releases_have_the_shape_of_the_originals_and_are_float32(setting, name):
    inn, condition = setting
    privatizer = Privatizer(inn, MECHANISMS[name](), basis(inn))
    for x in (images(6), images(6).double(), images(6).half(), images(6).transpose(2, 3)):
        released = privatizer(x, condition)
        assert released.shape == x.shape and released.dtype == torch.float32
        assert not released.requires_grad and torch.isfinite(released).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, torch.finfo(torch.float32).max])
@pytest.mark.parametrize("content", ["basis", "declared"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_hostile_images_are_released_as_finite_images(setting, value, content, name):
    inn, condition = setting
    if content == "declared" and name != "SubsetSelection":
        name = "SubsetSelection"
    privatizer = Privatizer(inn, MECHANISMS[name](), basis(inn) if content == "basis" else declared())
    x = images(6)
    x[1] = value
    x[2, :, :2] = value
    x[3, :, 0] = -value
    assert torch.isfinite(privatizer(x, condition)).all()


def test_the_original_is_not_touched(inn):
    x = images(3)
    x[0, 0, 0, 0] = math.nan
    before = x.clone()
    Privatizer(inn, PriorOnly(), basis(inn))(x, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


def test_two_releases_of_one_image_differ(inn):
    for mechanism in MECHANISMS.values():
        privatizer = Privatizer(inn, mechanism(), basis(inn))
        x, condition = images(3), torch.tensor([0, 1, 2])
        assert not torch.equal(privatizer(x, condition), privatizer(x, condition))


def test_no_seed_makes_a_release_repeat_itself(inn):
    privatizer = Privatizer(inn, MECHANISMS["SubsetSelection"](), basis(inn))
    releases = []
    for _ in range(2):
        torch.manual_seed(0)
        releases.append(privatizer(images(3), torch.tensor([0, 1, 2])))
    assert not torch.equal(*releases)


# --- what passes ------------------------------------------------------------------------------------------------------


def test_with_a_constant_mechanism_the_release_is_the_same_to_the_bit_for_any_two_images(setting):
    inn, condition = setting
    privatizer = Privatizer(inn, constant(), basis(inn), temperature=0.0)
    first, second = images(6, seed=1), images(6, seed=2) * 100 - 50
    second[0] = math.nan
    assert torch.equal(privatizer(first, condition), privatizer(second, condition))


def test_the_proof_above_would_see_a_leak(inn):
    condition = torch.tensor([0, 1, 2])
    privatizer = Privatizer(inn, identity(), basis(inn), temperature=0.0)
    assert not torch.equal(privatizer(images(3, 1), condition), privatizer(images(3, 2), condition))


def test_with_an_identical_mechanism_the_content_comes_back(setting):
    inn, condition = setting
    content = basis(inn)
    x = images(6)
    released = Privatizer(inn, identity(), content, temperature=0.0)(x, condition)
    original, kept = (inn.encode(batch, condition)[0] for batch in (x, released))
    torch.testing.assert_close(content.project(kept), content.project(original), rtol=0, atol=1e-3)
    outside = kept - content.project(kept) @ content.directions.T
    assert outside.abs().max() < 1e-3


def test_with_all_directions_an_identical_mechanism_returns_the_image(setting):
    inn, condition = setting
    x = images(6)
    released = Privatizer(inn, identity(), basis(inn, k=inn.num_latents))(x, condition)
    torch.testing.assert_close(released, x, rtol=0, atol=1e-3)


def test_the_completion_is_fresh_noise_of_the_given_temperature(inn):
    content = basis(inn)
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    for temperature in (1.0, 0.5):
        privatizer = Privatizer(inn, constant(), content, temperature=temperature)
        z = inn.encode(privatizer(images(1).expand(count, *SHAPE), condition), condition)[0].detach()
        outside = z - content.project(z) @ content.directions.T
        # 4000 x 11 normal numbers: the mean square is within 5 of its deviations, 1.4 %, of the truth but for 6e-7.
        assert outside.square().sum() / (count * (16 - 5)) == pytest.approx(temperature**2, rel=0.034)


def test_what_the_mechanism_is_given_of_an_image_does_not_depend_on_other_images(setting):
    inn, condition = setting
    mechanism = identity()
    privatizer = Privatizer(inn, mechanism, basis(inn))
    x = images(6)
    privatizer(x, condition)
    for value in (math.nan, math.inf, 1e30, 0.0):
        others = x.clone()
        others[[0, 1, 3, 4, 5]] = value
        privatizer(others, condition)
        assert torch.equal(mechanism.seen[-1][2], mechanism.seen[0][2])


def test_prior_only_gives_two_images_the_same_law(inn):
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    privatizer = Privatizer(inn, PriorOnly(), basis(inn))
    dark, bright = (privatizer(torch.full((count, *SHAPE), value), condition).flatten(1) for value in (0.0, 1.0))
    error = ((dark.var(0) + bright.var(0)) / count).sqrt()
    # 16 means of 4000 each: six deviations are passed with probability below 4e-8.
    assert ((dark.mean(0) - bright.mean(0)).abs() < 6 * error).all()


def test_the_test_above_would_see_a_mechanism_that_keeps_content(inn):
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    privatizer = Privatizer(inn, SubsetSelection(epsilon=1.0, num_candidates=64), basis(inn))
    dark, bright = (privatizer(torch.full((count, *SHAPE), value), condition).flatten(1) for value in (0.0, 1.0))
    error = ((dark.var(0) + bright.var(0)) / count).sqrt()
    assert not ((dark.mean(0) - bright.mean(0)).abs() < 6 * error).all()


def largest_loss(first, second, confidence):
    """Lower bound of the largest log ratio of frequencies, right for all outcomes together with this confidence."""
    outcomes = torch.cat([first, second]).unique(dim=0, return_inverse=True)[1]
    size = int(outcomes.max()) + 1
    counts = [outcomes[: len(first)].bincount(minlength=size), outcomes[len(first) :].bincount(minlength=size)]
    alpha = (1 - confidence) / (4 * size)
    bounds = []
    for a, b in (counts, counts[::-1]):
        for seen_a, seen_b in zip(a.tolist(), b.tolist(), strict=True):
            low = beta.ppf(alpha, seen_a, len(first) - seen_a + 1) if seen_a else 0.0
            high = beta.ppf(1 - alpha, seen_b + 1, len(second) - seen_b) if seen_b < len(second) else 1.0
            bounds.append(math.log(low / high) if low > 0 else -math.inf)
    return max(bounds), size


def measured_loss(epsilon, content):
    """Loss of 20 000 releases each of two very different rows of a table, with 8 candidates of which 2 are best."""
    torch.manual_seed(0)
    inn = ConditionalINN((), 3, num_couplings=2, width=8)
    chosen = ContentBasis.leading(inn, 3) if content == "basis" else DeclaredContent(lambda x: x, num_candidates=8)
    privatizer = Privatizer(inn, SubsetSelection(epsilon, num_candidates=8, subset_size=2, num_blocks=1), chosen)
    first, second = ((privatizer(value * torch.ones(20000, 3)) * 1e3).round() for value in (1.0, -1.0))
    return largest_loss(first, second, confidence=1 - 1e-6)


@pytest.mark.parametrize("content", ["basis", "declared"])
def test_the_measured_loss_of_a_release_does_not_exceed_epsilon(content):
    loss, outcomes = measured_loss(1.0, content)
    assert outcomes == 8
    assert loss <= 1.0
    # All of the budget is used: the bound is near epsilon, so the test has power.
    assert loss > 0.6


@pytest.mark.parametrize("content", ["basis", "declared"])
def test_a_mechanism_that_spends_twice_its_epsilon_is_caught(content):
    assert measured_loss(2.0, content)[0] > 1.0


# --- conditions -------------------------------------------------------------------------------------------------------


def test_a_public_condition_is_returned_as_it_is(setting):
    inn, condition = setting
    _, used = Privatizer(inn, PriorOnly(), basis(inn)).release(images(6), condition)
    assert used is condition or torch.equal(used, condition)


def test_a_condition_decides_what_is_released(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), temperature=0.0)
    released = privatizer(images(1).expand(3, *SHAPE), torch.tensor([0, 1, 2]))
    assert len(released.unique(dim=0)) == 3


def watched(inn):
    """The network, and the conditions with which it encodes and decodes from now on."""
    calls = []

    def record(name, method):
        def recorded(batch, condition=None):
            calls.append((name, condition))
            return method(batch, condition)

        setattr(inn, name, recorded)

    record("encode", inn.encode)
    record("decode", inn.decode)
    return calls


def test_a_private_label_is_randomized_before_the_network_sees_it(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), label_mechanism=RandomizedResponse(0.1, num_classes=3))
    calls = watched(inn)
    labels = torch.zeros(200, dtype=torch.long)
    _, used = privatizer.release(images(200), labels)
    # All 200 labels are kept with probability 0.36^200.
    assert not torch.equal(used, labels) and set(used.tolist()) <= {0, 1, 2}
    assert [name for name, _ in calls] == ["encode", "decode"]
    for _, condition in calls:
        assert torch.equal(condition, used)


def test_a_private_label_is_randomized_before_candidates_are_ranked(inn):
    privatizer = Privatizer(
        inn,
        SubsetSelection(epsilon=1.0, num_candidates=64),
        declared(64),
        label_mechanism=RandomizedResponse(0.1, num_classes=3),
    ).prepare(progress=False)
    calls = watched(inn)
    _, used = privatizer.release(images(200), torch.zeros(200, dtype=torch.long))
    assert not torch.equal(used, torch.zeros(200, dtype=torch.long))
    assert [name for name, _ in calls] == ["decode"] and torch.equal(calls[0][1], used)


def test_a_label_kept_almost_surely_comes_back(inn):
    privatizer = Privatizer(inn, PriorOnly(), basis(inn), label_mechanism=RandomizedResponse(40.0, num_classes=3))
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(privatizer.release(images(3), labels)[1], labels)


@pytest.mark.parametrize(("kind", "default"), [("class", 2), ("vector", [0.5, -1.0])])
def test_the_default_condition_is_used_when_none_is_given(networks, kind, default):
    inn = copy.deepcopy(networks[kind])
    privatizer = Privatizer(inn, constant(), basis(inn), condition=default, temperature=0.0)
    given = torch.as_tensor(default).expand(3, *torch.as_tensor(default).shape)
    released, used = privatizer.release(images(3))
    assert torch.equal(used, given)
    assert torch.equal(released, privatizer(images(3), given))


def test_a_given_condition_wins_over_the_default_one(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), condition=2)
    assert privatizer.release(images(2), torch.tensor([0, 1]))[1].tolist() == [0, 1]


# --- what is promised -------------------------------------------------------------------------------------------------


def test_the_guarantee_is_that_of_the_mechanism_for_this_network(inn):
    guarantee = Privatizer(inn, MECHANISMS["GaussianMechanism"](), basis(inn), unit="patient").guarantee
    assert (guarantee.epsilon, guarantee.delta, guarantee.mechanism) == (4.0, 1e-5, "GaussianMechanism")
    assert guarantee.unit == "patient"
    assert guarantee.fingerprint == inn.fingerprint()


def test_image_and_label_add_their_epsilons(inn):
    privatizer = Privatizer(
        inn, SubsetSelection(2.0, num_candidates=64), basis(inn), label_mechanism=RandomizedResponse(1.5, num_classes=3)
    )
    guarantee = privatizer.guarantee
    assert guarantee.epsilon == 3.5
    assert "condition" not in guarantee.public
    assert [part["mechanism"] for part in guarantee.parameters["parts"]] == ["SubsetSelection", "RandomizedResponse"]


@pytest.mark.parametrize(("kind", "public"), [("none", ()), ("class", ("condition",)), ("vector", ("condition",))])
def test_a_condition_is_called_public_exactly_where_it_is_released_as_it_is(networks, kind, public):
    inn = networks[kind]
    assert Privatizer(inn, PriorOnly(), basis(inn)).guarantee.public == public


@pytest.mark.parametrize(
    "provenance",
    [Provenance("private"), Provenance("public"), Provenance("dp-sgd", {"epsilon": 2, "delta": 1e-6, "unit": "image"})],
)
def test_the_guarantee_says_how_the_network_was_trained(inn, provenance):
    inn.training_data = provenance
    guarantee = Privatizer(inn, PriorOnly(), basis(inn)).guarantee
    assert (guarantee.training, guarantee.training_guarantee) == (provenance.training, provenance.guarantee)
    assert ("does not cover" in guarantee.explain()) == (provenance.training == "private")


def test_the_guarantee_names_the_number_of_directions(inn):
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn, k=4))
    assert privatizer.guarantee.parameters["num_directions"] == 4


def test_the_guarantee_of_declared_content_names_the_candidates_that_are_ranked(inn):
    content = DeclaredContent(mean_and_deviation, num_candidates=128, seed=9)
    parameters = Privatizer(inn, SubsetSelection(2.0), content).guarantee.parameters
    assert (parameters["num_candidates"], parameters["num_blocks"], parameters["seed"]) == (128, 1, 9)


# --- declared content -------------------------------------------------------------------------------------------------


def kept(inn, epsilon):
    """Correlation of the first declared feature between 1500 originals and their releases."""
    torch.manual_seed(0)
    condition = None if not inn.condition_space.num_classes else torch.zeros(1500, dtype=torch.long)
    x = inn.decode(torch.randn(1500, inn.num_latents), condition).detach()
    released = Privatizer(inn, SubsetSelection(epsilon), declared(1024))(x, condition)
    pair = torch.stack([mean_and_deviation(batch)[:, 0] for batch in (x, released)])
    return float(torch.corrcoef(pair)[0, 1])


@pytest.mark.parametrize("kind", ["none", "class"])
def test_declared_features_survive_a_large_epsilon_and_not_a_small_one(networks, kind):
    assert kept(networks[kind], 30.0) > 0.9
    # Independent pairs: a deviation of 0.026, so that 0.3 is passed with a probability far below 1e-6.
    assert abs(kept(networks[kind], 0.05)) < 0.3


@pytest.mark.parametrize("kind", CONDITIONS)
def test_declared_content_takes_every_kind_of_condition(networks, kind):
    inn, condition = networks[kind], conditions(kind, 6)
    released, used = Privatizer(inn, SubsetSelection(4.0), declared(64)).release(images(6), condition)
    assert released.shape == (6, *SHAPE) and torch.isfinite(released).all()
    assert used is None or torch.equal(used, condition)


def counting():
    calls = []

    def features(x):
        calls.append(len(x))
        return mean_and_deviation(x)

    return features, calls


@pytest.mark.parametrize("kind", ["none", "class"])
def test_after_prepare_a_release_looks_at_its_images_and_at_nothing_else(networks, kind):
    features, calls = counting()
    content = DeclaredContent(features, num_candidates=64)
    privatizer = Privatizer(networks[kind], SubsetSelection(4.0), content)
    assert privatizer.prepare(progress=False) is privatizer
    calls.clear()
    privatizer(images(6), conditions(kind, 6))
    assert calls == [1] * 6  # one by one, so that no image has an influence on another


def test_without_prepare_the_tables_are_made_once(inn):
    features, calls = counting()
    privatizer = Privatizer(inn, SubsetSelection(4.0), DeclaredContent(features, num_candidates=64))
    privatizer(images(6), torch.arange(6) % 3)
    calls.clear()
    privatizer(images(6), torch.arange(6) % 3)
    assert calls == [1] * 6


def test_a_loaded_network_gets_candidates_of_its_own(inn):
    features, calls = counting()
    privatizer = Privatizer(inn, SubsetSelection(4.0), DeclaredContent(features, num_candidates=64))
    privatizer(images(1), torch.tensor([0]))
    privatizer.load_state_dict(privatizer.state_dict())
    calls.clear()
    privatizer(images(1), torch.tensor([0]))
    assert calls[0] == 1 and len(calls) > 1


# --- errors -----------------------------------------------------------------------------------------------------------


class CountedLabels(RandomizedResponse):
    """Counts the labels that it randomizes."""

    def __init__(self):
        super().__init__(1.0, num_classes=3)
        self.calls = []

    def __call__(self, latents, generator=None):
        self.calls.append(len(latents))
        return super().__call__(latents, generator)


@pytest.mark.parametrize(
    ("kind", "x", "condition"),
    [
        (ValueError, torch.zeros(2, 1, 4, 5), torch.tensor([0, 1])),
        (ValueError, torch.zeros(1, 4, 4), torch.tensor([0])),
        (ValueError, torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])),
        (ValueError, torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long)),
        (ValueError, torch.zeros(()), None),
        (TypeError, torch.zeros(2, 1, 4, 4, dtype=torch.int32), torch.tensor([0, 1])),
        (TypeError, torch.zeros(2, 1, 4, 4, dtype=torch.complex64), torch.tensor([0, 1])),
        (TypeError, [[0.0]], torch.tensor([0])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0, 3])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0, -1])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0])),
        (ValueError, torch.zeros(2, 1, 4, 4), None),
        (TypeError, torch.zeros(2, 1, 4, 4), torch.tensor([0.0, 1.0])),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_spent(inn, refused, kind, x, condition):
    mechanism, labels = constant(), CountedLabels()
    privatizer = Privatizer(inn, mechanism, basis(inn), label_mechanism=labels)
    with refused(kind, "expected|pass"):
        privatizer(x, condition)
    assert mechanism.seen == [] and labels.calls == []


@pytest.mark.parametrize("condition", [torch.tensor([[math.nan, 0.0]]), torch.zeros(1, 3), torch.tensor([[0, 1]])])
def test_a_vector_that_does_not_fit_is_refused_before_anything_is_spent(networks, refused, condition):
    mechanism = constant()
    with refused((TypeError if condition.dtype == torch.long else ValueError), "expected"):
        Privatizer(networks["vector"], mechanism, basis(networks["vector"]))(images(1), condition)
    assert mechanism.seen == []


def test_parts_of_the_wrong_kind_are_refused(inn, refused):
    content = basis(inn)
    for arguments, name in (
        ((torch.nn.Linear(2, 2), PriorOnly(), content), "inn is a Linear; expected InvertibleNetwork"),
        ((inn, "laplace", content), "mechanism is a str; expected Mechanism"),
        ((inn, PriorOnly(), None), "content is a NoneType; expected ContentBasis or DeclaredContent"),
        ((inn, PriorOnly(), declared()), "declared content needs SubsetSelection"),
    ):
        with refused(TypeError, name):
            Privatizer(*arguments)
    with refused(TypeError, "label_mechanism is a SubsetSelection; expected RandomizedResponse"):
        Privatizer(inn, PriorOnly(), content, label_mechanism=SubsetSelection(1.0))


def test_a_detail_temperature_of_0_leaves_nothing_outside_of_the_subspace_and_the_content_as_it_is():
    torch.manual_seed(0)
    inn = ConditionalINN((4, 8), num_levels=1, rank=3, num_couplings=2, width=8)
    content = ContentBasis.leading(inn, 2)
    privatizer = Privatizer(inn, constant(), content, detail_temperature=0.0)
    z, _ = inn.encode(privatizer(images(200, shape=(1, 4, 8))))
    subspace = inn.whitening.basis
    assert (z[:, :8] - z[:, :8] @ subspace @ subspace.T).abs().max() < 1e-4 and z[:, 8:].abs().max() < 1e-4
    inside = z[:, :8] @ subspace
    assert inside[:, :2].abs().max() < 1e-4 and inside[:, 2].std() > 0.8


def test_declared_content_is_decoded_as_its_table_was():
    inn = ConditionalINN((4, 8), num_levels=1, rank=3, num_couplings=2, width=8)
    features = DeclaredContent(lambda x: x.flatten(1)[:, :2], num_candidates=64)
    seen = []
    for temperature in (1.0, 0.2):
        privatizer = Privatizer(inn, SubsetSelection(30.0), features, detail_temperature=temperature)
        released = privatizer(images(20, shape=(1, 4, 8)))
        table = features.table(inn, None, privatizer._temper)
        assert torch.cdist(table.standardise(features.describe(released)), table.candidates).min(1).values.max() < 0.02
        seen.append(privatizer.identity)
    assert seen[0] != seen[1]


def test_a_network_without_details_has_no_temperature_of_details(refused):
    inn = PaperINN((4, 4), depths=(1,), num_dense=1, dense_width=8)
    with refused(ValueError, "a PaperINN has no details"):
        Privatizer(inn, PriorOnly(), ContentBasis(torch.eye(16)[:, :2], torch.ones(2)), detail_temperature=0.5)


def test_parts_that_do_not_fit_each_other_are_refused(networks, inn, refused):
    content = basis(inn)
    with refused(ValueError, "directions of length 3, but the network has 16"):
        Privatizer(inn, PriorOnly(), ContentBasis(torch.eye(3), torch.ones(3)))
    with refused(ValueError, "takes no class labels"):
        Privatizer(networks["vector"], PriorOnly(), content, label_mechanism=RandomizedResponse(1.0, 3))
    with refused(ValueError, "has 4 classes, but the network has 3"):
        Privatizer(inn, PriorOnly(), content, label_mechanism=RandomizedResponse(1.0, 4))


@pytest.mark.parametrize("name", ["temperature", "detail_temperature"])
@pytest.mark.parametrize("temperature", [-0.1, 1.1, math.nan])
def test_a_temperature_out_of_range_is_refused(inn, refused, name, temperature):
    with refused(ValueError, f"{name} is .*expected a number from 0 to 1"):
        Privatizer(inn, PriorOnly(), basis(inn), **{name: temperature})


@pytest.mark.parametrize(("kind", "condition"), [(ValueError, 3), (ValueError, -1), (TypeError, 0.5)])
def test_a_default_condition_that_the_network_does_not_take_is_refused_at_once(inn, refused, kind, condition):
    with refused(kind, "expected"):
        Privatizer(inn, PriorOnly(), basis(inn), condition=condition)


def test_the_default_condition_is_no_part_of_a_checkpoint(inn):
    state = Privatizer(inn, PriorOnly(), basis(inn), condition=1).state_dict()
    assert state.keys() == Privatizer(inn, PriorOnly(), basis(inn)).state_dict().keys()


# --- how it is kept ---------------------------------------------------------------------------------------------------


def test_pickle_and_deepcopy_keep_the_promise_and_the_network(inn):
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn), condition=1, temperature=0.5)
    for other in (pickle.loads(pickle.dumps(privatizer)), copy.deepcopy(privatizer)):
        assert other.guarantee == privatizer.guarantee
        assert other(images(2)).shape == (2, *SHAPE)
        assert not torch.equal(other(images(2)), other(images(2)))


def test_a_loaded_basis_brings_its_weights_to_the_mechanism(inn):
    fitted = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn))
    place = Privatizer(copy.deepcopy(inn), SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))
    wide = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.fit(inn, 4, num_samples=128))
    place.load_state_dict(wide.state_dict())
    assert place.guarantee == wide.guarantee != fitted.guarantee


@pytest.fixture(scope="module")
def traced(networks):
    inn = copy.deepcopy(networks["class"])
    privatizer = Privatizer(inn, SubsetSelection(4.0, num_candidates=256), basis(inn), condition=1)
    return torch.jit.trace(privatizer, images(3), check_trace=False)


def test_a_traced_privatizer_tosses_fresh_coins_at_every_call(traced):
    x = images(3)
    releases = [traced(x) for _ in range(4)]
    for index, release in enumerate(releases):
        assert torch.isfinite(release).all()
        assert not any(torch.equal(release, other) for other in releases[:index])


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_traced_privatizer_takes_other_batch_sizes(traced, count):
    released = traced(images(1).expand(count, *SHAPE))
    assert released.shape == (count, *SHAPE)
    # The same image many times: every row has noise of its own.
    assert len(released.unique(dim=0)) == count


def test_a_traced_privatizer_survives_a_file(traced):
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    assert loaded(images(5)).shape == (5, *SHAPE)
    assert not torch.equal(loaded(images(5)), loaded(images(5)))


def test_a_traced_privatizer_keeps_content_as_the_original_does(networks):
    inn = copy.deepcopy(networks["class"])
    content = basis(inn)
    privatizer = Privatizer(inn, SubsetSelection(30.0, num_candidates=256), content, condition=1, temperature=0.5)
    traced = torch.jit.trace(privatizer, images(3), check_trace=False)
    x = images(800, seed=3)
    condition = torch.ones(800, dtype=torch.long)
    original = content.project(inn.encode(x, condition)[0])[:, 0]
    released = content.project(inn.encode(traced(x), condition)[0])[:, 0]
    assert torch.corrcoef(torch.stack([original, released]))[0, 1] > 0.5


# --- what a caller may change -----------------------------------------------------------------------------------------


class MixesTheBatch(torch.nn.Module):
    """Features that look at the whole batch: in training mode by their norm, and always by its mean."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(self, x):
        mean = x.mean((1, 2, 3))[:, None]
        return self.norm(mean) - mean.mean()


def test_declared_features_cannot_mix_images_whatever_they_do(inn):
    features = MixesTheBatch()
    privatizer = Privatizer(inn, SubsetSelection(40.0), DeclaredContent(features, num_candidates=64)).train()
    assert not features.training
    before = copy.deepcopy(features.state_dict())
    labels = torch.zeros(2, dtype=torch.long)
    dark, bright = (privatizer(torch.cat([images(1), mate * torch.ones(1, *SHAPE)]), labels) for mate in (0.0, 1e6))
    assert torch.equal(dark[0], bright[0])
    assert all(torch.equal(features.state_dict()[name], value) for name, value in before.items())


def test_another_mechanism_brings_its_own_threshold_and_guarantee(inn):
    content = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=64)
    privatizer = Privatizer(inn, SubsetSelection(40.0), content)
    labels = torch.zeros(400, dtype=torch.long)
    certain = privatizer(images(1).expand(400, *SHAPE), labels)
    privatizer.mechanism = SubsetSelection(0.01)
    assert privatizer.guarantee.epsilon == 0.01
    blurred = privatizer(images(1).expand(400, *SHAPE), labels)
    assert len(certain.unique(dim=0)) < 64 / 2 < len(blurred.unique(dim=0))


def test_a_label_mechanism_that_was_taken_away_is_promised_no_longer(inn):
    label = RandomizedResponse(1.0, num_classes=3)
    privatizer = Privatizer(inn, constant(), basis(inn), label_mechanism=label)
    before = privatizer.guarantee
    privatizer.label_mechanism = None
    assert privatizer.guarantee.epsilon == before.epsilon - 1.0
    assert before.public == () and privatizer.guarantee.public == ("condition",)
