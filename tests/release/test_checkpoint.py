# SPDX-License-Identifier: Apache-2.0
"""The file to release with is read whole or refused, and never runs code."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from functools import partial

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent, PaperINN, TrainedModel, new_event
from monai_cadp.networks.trained_model import WEIGHTS as KEY
from monai_cadp.privacy import PriorOnly, RandomizedResponse, SubsetSelection
from monai_cadp.release.checkpoint import load_model, load_network, load_privatizer, save_model

CONDITIONS = {"none": {}, "class": {"num_classes": 3}, "vector": {"condition_size": 2}}
MECHANISM = SubsetSelection(4.0, num_candidates=64)


def network(kind="class", paper=False):
    torch.manual_seed(0)
    if paper:
        return PaperINN((4, 4), 1, **CONDITIONS[kind], depths=(1,), num_dense=1, dense_width=8)
    return ConditionalINN((4, 4), 1, **CONDITIONS[kind], num_levels=1, num_couplings=2, width=8)


def privatizer(inn=None):
    inn = network() if inn is None else inn
    return Privatizer(inn, MECHANISM, ContentBasis.fit(inn, 3, num_samples=64))


def save(privatizer, path):
    save_model(TrainedModel(privatizer.inn, privatizer.content), path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "Mustermann" / "model.pt"
    save(privatizer(), path)
    return path


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("paper", [False, True])
def test_what_was_saved_is_what_is_loaded(tmp_path, kind, paper):
    inn = network(kind, paper)
    inn.add_training_events([new_event("flow", "dp", {"epsilon": 2.0, "delta": 1e-6, "unit": "patient"})])
    original = privatizer(inn)
    save(original, tmp_path / "model.pt")
    loaded = load_privatizer(tmp_path / "model.pt", MECHANISM)
    assert type(loaded.inn) is type(inn)
    assert loaded.inn.fingerprint() == inn.fingerprint()
    assert torch.equal(loaded.content.directions, original.content.directions)
    assert loaded.guarantee == original.guarantee


def test_a_basis_of_the_first_latents_belongs_to_its_network_when_it_is_loaded(tmp_path):
    inn = network()
    basis = ContentBasis.fit(inn, 3, num_samples=64, in_subspace=True)
    save(Privatizer(inn, MECHANISM, basis), tmp_path / "a")
    loaded = load_privatizer(tmp_path / "a", MECHANISM)
    assert loaded.content.directions.shape == (4, 3) and loaded.content.num_latents == inn.num_latents


def test_numbers_of_half_precision_take_half_the_place_and_no_other_number_changes(tmp_path):
    sizes = []
    for rounded in (False, True):
        torch.manual_seed(0)
        inn = ConditionalINN((16, 16), 1, width=64, num_couplings=2)
        with inn.learning("public"), torch.no_grad():
            for parameter in inn.parameters():
                if parameter.is_floating_point():
                    parameter.copy_(parameter.half() if rounded else parameter)
        save_model(TrainedModel(inn, ContentBasis.leading(inn, 3)), tmp_path / "model.pt")
        loaded = load_model(tmp_path / "model.pt")
        assert loaded.fingerprint() == inn.fingerprint()
        assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), inn.parameters(), strict=True))
        sizes.append((tmp_path / "model.pt").stat().st_size)
    assert sizes[1] < 0.9 * sizes[0]


def test_a_large_basis_is_stored_in_half_and_still_inverted(tmp_path):
    torch.manual_seed(0)
    inn = ConditionalINN((1024, 128), num_levels=0, rank=9, width=8, num_couplings=2)
    basis = torch.linalg.qr(torch.randn(inn.num_latents, 9)).Q
    inn.whitening.basis.copy_(basis)
    original = Privatizer(inn, MECHANISM, ContentBasis(basis, torch.ones(9)))
    save(original, tmp_path / "model.pt")
    loaded = load_privatizer(tmp_path / "model.pt", MECHANISM)
    x = torch.rand(1, 1, 1024, 128)
    assert (tmp_path / "model.pt").stat().st_size < 2.5 * 2 * basis.numel()
    assert torch.equal(loaded.inn.encode(x)[0], original.inn.encode(x)[0])
    assert loaded.guarantee == original.guarantee
    assert (loaded.inn.decode(loaded.inn.encode(x)[0]) - x).abs().max() < 1e-4


def test_a_file_with_a_known_digest_is_that_one_or_refused(path, refused):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_privatizer(path, MECHANISM, sha256=digest).guarantee.epsilon == 4.0
    path.write_bytes(path.read_bytes() + b"x")
    for swapped in (path, path.with_name("missing.pt")):
        with refused(ValueError, "not the one that was shipped"):
            load_privatizer(swapped, MECHANISM, sha256=digest)


def test_the_budget_is_chosen_when_loading_and_not_written(path):
    assert load_privatizer(path, SubsetSelection(1.0, num_candidates=64)).guarantee.epsilon == 1.0
    assert load_privatizer(path, PriorOnly()).guarantee.epsilon == 0.0
    label = RandomizedResponse(2.0, num_classes=3)
    assert load_privatizer(path, MECHANISM, label_mechanism=label).guarantee.epsilon == 6.0
    assert load_privatizer(path, MECHANISM, label_epsilon=2.0).guarantee.epsilon == 6.0


def test_several_labels_share_their_budget_and_a_network_without_labels_has_none(tmp_path, refused):
    path = tmp_path / "model.pt"
    save(privatizer(network("vector")), path)
    loaded = load_privatizer(path, MECHANISM, label_epsilon=2.0)
    assert loaded.guarantee.epsilon == 6.0 and loaded.guarantee.public == ()
    _, labels = loaded.release_with_conditions(torch.rand(400, 1, 4, 4), torch.zeros(400, 2))
    # Each is answered with epsilon 1, wrongly with probability 1 / (1 + e); outside with probability 1e-5.
    assert labels.mean() == pytest.approx(1 / (1 + math.e), abs=0.07)
    save(privatizer(network("none")), path)
    with refused(ValueError, "takes no labels; leave it out"):
        load_privatizer(path, MECHANISM, label_epsilon=2.0)


def test_options_reach_the_privatizer_and_content_replaces_that_of_the_file(path):
    content = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=64)
    loaded = load_privatizer(path, MECHANISM, content=content, condition=1, unit="volume")
    assert loaded.content is content and loaded.guarantee.unit == "volume"
    assert loaded(torch.rand(2, 1, 4, 4)).shape == (2, 1, 4, 4)


def test_saving_anew_replaces_the_whole_file_and_leaves_no_other(path):
    inn = network()
    with torch.no_grad():
        next(inn.parameters()).add_(1.0)
    save(privatizer(inn), path)
    assert load_privatizer(path, MECHANISM).inn.fingerprint() == inn.fingerprint()
    assert [item.name for item in path.parent.iterdir()] == ["model.pt"]


def test_a_file_that_cannot_be_written_leaves_the_one_before(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save(privatizer(), path)
    assert path.read_bytes() == before


def test_declared_content_is_code_and_is_not_saved(tmp_path, refused):
    declared = Privatizer(network(), MECHANISM, DeclaredContent(lambda x: x.flatten(1)))
    with refused(TypeError, "expected a ContentBasis, for others are code"):
        save(declared, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def altered(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


class RunsCode:
    """What a hostile pickle does."""

    def __reduce__(self):
        return os.mkdir, ("ran-code",)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no checkpoint"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its end": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "another dictionary": lambda path: torch.save({"model": {}}, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "code": lambda path: torch.save({KEY: RunsCode()}, path),
    "a missing tensor": lambda path: altered(path, lambda c: c[KEY].popitem()),
    "no basis": lambda path: altered(path, lambda c: c[KEY].pop("content.weights")),
    "an unknown network": lambda path: altered(path, lambda c: c[KEY]["inn._extra_state"].update(kind="Transformer")),
    "no network": lambda path: altered(path, lambda c: c[KEY]["inn._extra_state"].update(kind="fit_moments")),
    "other sizes": lambda path: altered(
        path, lambda c: c[KEY]["inn._extra_state"]["config"].update(spatial_shape=[8, 8])
    ),
    "a broken basis": lambda path: altered(path, lambda c: c[KEY]["content.directions"].mul_(2)),
    "an unknown training": lambda path: altered(
        path,
        lambda c: c[KEY]["inn._extra_state"]["training_data"].update(events=[new_event("flow") | {"protection": "no"}]),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_a_sentence_that_names_no_path(path, refused, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DAMAGES[damage](path)
    with refused(ValueError, "could not be read; expected an undamaged file") as _:
        load_privatizer(path, MECHANISM)
    assert not (tmp_path / "ran-code").exists()


def test_the_sentence_hides_the_inner_error_that_names_the_path(path):
    path.unlink()
    with pytest.raises(ValueError) as caught:
        load_privatizer(path, MECHANISM)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize("position", [0.3, 0.5, 0.7])
def test_a_flipped_bit_in_a_weight_is_found(path, position):
    content = bytearray(path.read_bytes())
    reference = copy.deepcopy(load_privatizer(path, MECHANISM).state_dict())
    content[int(len(content) * position)] ^= 0x40
    path.write_bytes(bytes(content))
    try:
        loaded = load_privatizer(path, MECHANISM).state_dict()
    except ValueError:
        return
    # A bit that nothing is read from may flip unseen.
    for name, value in reference.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(loaded[name], value), "a changed weight was read as if nothing had happened"


# --- the trained model ------------------------------------------------------------------------------------------------


def test_a_file_holds_bases_and_names_and_a_privatizer_is_built_from_one_of_them(tmp_path, refused):
    inn = network()
    bases = {"fine": ContentBasis.leading(inn, 4), "coarse": ContentBasis.leading(inn, 2)}
    save_model(TrainedModel(inn, bases, condition_names=["a", "b", "c"]), tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    assert list(model.bases) == ["fine", "coarse"] and model.content.num_directions == 4
    assert model.condition_names == ["a", "b", "c"]
    assert model.training_events == inn.training_events and model.fingerprint() == inn.fingerprint()
    assert Privatizer(model, MECHANISM).guarantee == Privatizer(inn, MECHANISM, bases["fine"]).guarantee
    loaded = load_privatizer(tmp_path / "model.pt", MECHANISM, content="coarse")
    assert loaded.content.num_directions == 2 and loaded(torch.rand(1, 1, 4, 4), torch.tensor([2])).shape == (
        1,
        1,
        4,
        4,
    )
    with refused(ValueError, "content is 'medium'; expected one of the bases fine, coarse"):
        Privatizer(model, MECHANISM, "medium")


@pytest.mark.parametrize("load", [load_model, load_network, partial(load_privatizer, mechanism=MECHANISM)])
def test_inputs_that_are_read_otherwise_than_in_the_training_are_refused(tmp_path, refused, load):
    path = tmp_path / "model.pt"
    save_model(TrainedModel(network(), ContentBasis.leading(network(), 2), schema={"spacing": 1.8}), path)
    # What the file does not know is not compared.
    load(path, schema={"spacing": 1.8, "padding": "zeros"})
    with refused(ValueError, "'spacing' is 3.6, but the network has learnt from inputs that were read with 1.8"):
        load(path, schema={"spacing": 3.6})


def test_a_file_of_an_older_version_has_no_names_and_is_read(path):
    altered(path, lambda content: content.pop("model"))
    model = load_model(path)
    assert model.condition_names is None and list(model.bases) == ["content"]
    assert model.fingerprint() == network().fingerprint()


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"network": torch.nn.Identity()}, TypeError, "network is a Identity"),
        ({"bases": {}}, ValueError, "no content basis"),
        ({"bases": ContentBasis(torch.eye(3), torch.ones(3))}, ValueError, "directions of length 3"),
        ({"condition_names": ["a"]}, ValueError, "1 condition_names for 3"),
        ({"condition_names": ["a", "b", "a"]}, ValueError, "same name"),
    ],
)
def test_parts_of_a_model_that_do_not_fit_are_refused(options, kind, match, refused):
    inn = network()
    with refused(kind, match):
        TrainedModel(**({"network": inn, "bases": ContentBasis.leading(inn, 4)} | options))


def test_a_device_that_there_is_not_is_refused(path, refused):
    with refused(ValueError, "device is 'abacus', which cannot be used here"):
        load_privatizer(path, MECHANISM, device="abacus")


def test_a_network_alone_takes_no_number_of_directions_and_all_else_that_is_stated(tmp_path, refused):
    inn = ConditionalINN((4, 4), num_levels=0)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), tmp_path / "model.pt")
    stated = {"num_directions": 3, "spatial_shape": [4, 4]}
    assert load_network(tmp_path / "model.pt", stated=stated).fingerprint() == inn.fingerprint()
    for prefix in ("", "network#", "inn#"):
        with refused(ValueError, "spatial_shape"):
            load_network(tmp_path / "model.pt", stated={f"{prefix}spatial_shape": [8, 8]})
    with refused(ValueError, "num_directions"):
        load_model(tmp_path / "model.pt", stated=stated)
