# SPDX-License-Identifier: Apache-2.0
"""A network carries all that it has learned from, wherever its weights go, and nothing takes anything away."""

from __future__ import annotations

import copy
import io
import pickle
import random
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from monai_cadp.engines import FlowTrainer
from monai_cadp.handlers import TrainingCheckpoint
from monai_cadp.networks import (
    ConditionalINN,
    ContentBasis,
    PaperINN,
    TrainedModel,
    fit_moments,
    new_event,
    refit_subspace,
)
from monai_cadp.privacy import SubsetSelection, TrainingData
from monai_cadp.release.checkpoint import load_network, load_privatizer, save_model
from monai_cadp.release.privatizer import Privatizer

ORDER = ("public", "dp", "unprotected")
DP = {"epsilon": 1.0, "delta": 1e-6, "unit": "image", "relation": "replace-one"}


def network(seed=0):
    torch.manual_seed(seed)
    return ConditionalINN((), 3, rank=3, num_couplings=1, width=4)


def rows(seed=0):
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))


def loader(seed=0):
    return DataLoader([{"image": row} for row in rows(seed)], 20)


def protection(inn):
    return TrainingData.of(inn).protection


def identities(inn):
    return {event["identity"] for event in inn.training_events}


def learned(word="public", seed=0):
    inn = network(seed)
    fit_moments(inn, lambda: [(rows(seed), None)], training_data=word)
    return inn


def weight(inn):
    return inn.whitening.flow.steps[0].subnet.last.weight


# --- every door -------------------------------------------------------------------------------------------------------


def test_a_new_network_has_learned_nothing_and_is_public():
    assert network().training_events == () and protection(network()) == "public"


def test_fitting_moments_counts_as_unprotected_unless_the_caller_knows_better():
    inn = network()
    fit_moments(inn, lambda: [(rows(), None)])
    assert protection(inn) == "unprotected"
    assert protection(learned("public")) == "public"
    maps = ConditionalINN((8, 8), num_levels=0, rank=4, num_couplings=0, num_maps=1, num_local_couplings=2)
    refit_subspace(maps, lambda: [(torch.rand(50, 1, 8, 8), None)], training_data="public")
    assert protection(maps) == "public"
    refit_subspace(maps, lambda: [(torch.rand(50, 1, 8, 8), None)])
    assert protection(maps) == "unprotected"


@pytest.mark.parametrize("reversible", [False, True])
def test_a_public_training_of_a_network_that_holds_unprotected_people_stays_unprotected(reversible):
    """Today the caller's word makes it public."""
    inn = learned("unprotected")
    trainer = FlowTrainer(inn, loader(), max_epochs=1, training_data="public", reversible=reversible)
    trainer.run()
    for trained in (trainer.network, trainer.averaged_network):
        assert protection(trained) == "unprotected" and identities(learned()).isdisjoint(identities(trained))
        assert len(identities(trained)) == 2


def test_a_private_network_that_was_trained_further_keeps_its_guarantee_and_gets_worse_only():
    """Today a network of private training that FlowTrainer goes on with becomes public."""
    inn = learned()
    inn.add_training_events([new_event("flow", "dp", DP)])
    FlowTrainer(inn, loader(), max_epochs=1, training_data="public").run()
    assert protection(inn) == "dp" and TrainingData.of(inn).guarantee["epsilon"] == 1.0
    FlowTrainer(inn, loader(), max_epochs=1).run()
    assert protection(inn) == "unprotected"


def test_the_event_is_there_before_an_image_is_looked_at():
    inn, seen = network(), []

    def batches():
        seen.append(protection(inn))
        yield rows(), None

    fit_moments(inn, batches)
    assert seen and set(seen) == {"unprotected"}
    with pytest.raises(ZeroDivisionError):
        fit_moments(network(), lambda: [1 / 0])
    broken = network(seed=1)
    with pytest.raises(ZeroDivisionError):
        fit_moments(broken, lambda: [1 / 0])
    assert protection(broken) == "unprotected"


def test_a_training_that_was_stopped_by_an_error_is_in_the_record():
    trainer = FlowTrainer(learned(), [{"image": torch.full((4, 3), float("nan"))}], max_epochs=1)
    with pytest.raises(Exception, match="loss became nan"):
        trainer.run()
    assert protection(trainer.network) == protection(trainer.averaged_network) == "unprotected"


def test_a_resumed_run_is_the_same_run_under_the_less_safe_word(tmp_path):
    """Today the default resume continues an unprotected training as a public one."""
    path = tmp_path / "last.pt"
    first = FlowTrainer(network(), loader(), max_epochs=1).attach_all([TrainingCheckpoint(path)])
    first.run()
    again = FlowTrainer(network(), loader(), max_epochs=2, training_data="public")
    again.attach_all([TrainingCheckpoint(path, resume=True)]).run()
    assert identities(again.network) == identities(first.network) and len(identities(first.network)) == 1
    assert protection(again.network) == protection(again.averaged_network) == "unprotected"


def test_a_training_state_of_an_older_version_goes_on_as_unprotected(tmp_path):
    path = tmp_path / "last.pt"
    FlowTrainer(network(), loader(), max_epochs=1, training_data="public").attach_all([TrainingCheckpoint(path)]).run()
    state = torch.load(path, weights_only=True)
    del state["trainer"]["training_event"]
    for part, prefix in (("network", ""), ("averaged", "module.")):
        state[part][f"{prefix}_extra_state"]["training_data"] = {"training": "public", "guarantee": None}
    torch.save(state, path)
    again = FlowTrainer(network(), loader(), max_epochs=2, training_data="public")
    with pytest.warns(UserWarning, match="of an older version"):
        again.attach_all([TrainingCheckpoint(path, resume=True)])
    again.run()
    assert protection(again.averaged_network) == "unprotected"


# --- every way that weights travel ------------------------------------------------------------------------------------


def through_a_file(inn):
    file = io.BytesIO()
    torch.save(inn.state_dict(), file)
    file.seek(0)
    other = type(inn)(**inn.config)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda inn: pickle.loads(pickle.dumps(inn)),
    "average": lambda inn: AveragedModel(inn).module,
    "file": through_a_file,
    "sequential": lambda inn: copy.deepcopy(nn.Sequential(inn))[0],
    "double and back": lambda inn: copy.deepcopy(copy.deepcopy(inn).double()).float(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("word", ["public", "unprotected"])
def test_the_record_goes_wherever_the_weights_go(way, word):
    inn = learned(word)
    other = WAYS[way](inn)
    assert other.training_events == inn.training_events and other.fingerprint() == inn.fingerprint()


def test_a_network_of_another_kind_carries_it_too():
    inn = PaperINN((4, 4), 1, depths=(1,), num_dense=1, dense_width=8)
    with inn.learning("public"):
        pass
    assert through_a_file(inn).training_events == inn.training_events


def test_loading_adds_what_the_other_model_has_learned_from():
    inn, other = learned("public"), learned("unprotected", seed=1)
    expected = identities(inn) | identities(other)
    inn.load_state_dict(other.state_dict())
    assert identities(inn) == expected and protection(inn) == "unprotected"
    public = learned("public", seed=2)
    inn.load_state_dict(public.state_dict())
    assert identities(inn) == expected | identities(public) and protection(inn) == "unprotected"


def test_a_checkpoint_of_an_older_version_is_unprotected_and_a_warning_says_why():
    inn = learned("public")
    state = copy.deepcopy(inn.state_dict())
    state["_extra_state"]["training_data"] = {"training": "public", "guarantee": None}
    other = network()
    with pytest.warns(UserWarning, match=r"of an older version, which took the caller's word"):
        other.load_state_dict(state)
    assert protection(other) == "unprotected"


@pytest.mark.parametrize("record", [None, {}, {"events": [], "fingerprint": None}, {"events": [], "fingerprint": "a"}])
def test_a_state_whose_record_is_missing_or_of_other_weights_is_unprotected(record):
    state = copy.deepcopy(learned("public").state_dict())
    if record is None:
        del state["_extra_state"]
    else:
        state["_extra_state"]["training_data"] = record
    other = network()
    with pytest.warns(UserWarning) if record == {} else nullcontext():
        other.load_state_dict(state, strict=False)
    assert protection(other) == "unprotected"


def test_a_part_of_another_state_is_unprotected():
    state = copy.deepcopy(learned("public", seed=1).state_dict())
    some = {name: value for name, value in state.items() if "flow" not in name}
    other = network()
    other.load_state_dict(some, strict=False)
    assert protection(other) == "unprotected"
    inner = learned("public")
    inner.whitening.load_state_dict(learned("public", seed=1).whitening.state_dict())
    assert protection(inner) == "unprotected"


# --- weights that are changed outside of every door -------------------------------------------------------------------


def swapped_rows(inn):
    first = inn.whitening.basis.data[:, 0].clone()
    inn.whitening.basis.data[:, 0] = inn.whitening.basis.data[:, 1]
    inn.whitening.basis.data[:, 1] = first


def by_numpy(inn):
    inn.whitening.mean.numpy()[0] += 1


def by_hand(inn):
    optimizer = torch.optim.SGD(inn.parameters(), lr=0.1)
    (-inn.log_prob(rows()).mean()).backward()
    optimizer.step()


def other_parameter(inn):
    weight(inn).data = weight(inn).data + 1


def other_module(inn):
    inn.whitening = learned("public", seed=4).whitening


EDITS = {
    "data.add_": lambda inn: weight(inn).data.add_(1e-7),
    "data.neg_": lambda inn: inn.whitening.basis.data.neg_(),
    "another storage": other_parameter,
    "another module": other_module,
    "swapped": swapped_rows,
    "numpy": by_numpy,
    "a constant that no checkpoint holds": lambda inn: inn.whitening.flow.steps[0].order.data.copy_(
        torch.tensor([0, 2, 1])
    ),
    "a derived buffer": lambda inn: inn.whitening.inside.inverse_factor.data.add_(0.1),
    "a hand-written training": by_hand,
    "another not-a-number": lambda inn: inn.whitening.mean.data.fill_(float("nan")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_weights_that_somebody_has_changed_are_unprotected_and_have_another_fingerprint(edit):
    """Today `weight.data.add_()` keeps the fingerprint of a guarantee."""
    inn = learned("public")
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 2))
    before, identity = privatizer.guarantee, privatizer.identity
    assert before.training_data.protection == "public"
    EDITS[edit](inn)
    after = privatizer.guarantee
    assert after.training_data.protection == "unprotected" and privatizer.identity != identity
    # A derived buffer is made again instead.
    assert (after.fingerprint == before.fingerprint) == (edit == "a derived buffer")
    # The same change is the same event, and saved or copied it stays.
    # A copy is built with the constant as it was, which is one change more.
    assert privatizer.guarantee == after
    copied = copy.deepcopy(inn).training_events
    assert all(event in copied for event in inn.training_events)
    assert len(copied) == len(inn.training_events) + (edit == "a constant that no checkpoint holds")


def test_a_change_is_noticed_before_other_weights_are_loaded_over_it():
    inn = learned("public")
    weight(inn).data.add_(1)
    inn.load_state_dict(learned("public", seed=1).state_dict())
    assert protection(inn) == "unprotected"


def test_nobody_takes_anything_from_the_record():
    inn = learned("unprotected")
    inn.training_events[0]["protection"] = "public"
    inn.state_dict()["_extra_state"]["training_data"]["events"].clear()
    assert protection(inn) == "unprotected"
    with pytest.raises(AttributeError):
        inn.training_events = ()


def test_a_door_that_names_no_event_is_refused(refused):
    with refused(ValueError, "learnt from nothing"), network().receiving([]):
        pass
    for word in ("private", "dp", ""):
        with refused(ValueError, "."), network().learning(word):
            pass


# --- all of it together -----------------------------------------------------------------------------------------------


def worse(before, after):
    """Whether nothing was lost, and nothing became better."""
    old, new = TrainingData.of(before), TrainingData.of(after)
    numbers = [(one.guarantee or {}).get("epsilon", 0.0) for one in (old, new)]
    ranks = [ORDER.index(one.protection) for one in (old, new)]
    return old.entries <= new.entries and (ranks[0] < ranks[1] or (ranks[0] == ranks[1] and numbers[0] <= numbers[1]))


def steps(folder, draw):
    """What may happen to a network: functions from a network, its history and a seed to the next network."""

    def trained(inn, word):
        trainer = FlowTrainer(inn, loader(draw.randrange(9)), max_epochs=1, training_data=word)
        trainer.attach_all([TrainingCheckpoint(folder / "last.pt", resume=False)]).run()
        return draw.choice([trainer.network, trainer.averaged_network])

    def privately(inn):
        with inn.learning(new_event("flow", "dp", DP)), torch.no_grad():
            weight(inn).add_(0.01)
        return inn

    def resumed(inn):
        if not (folder / "last.pt").exists():
            return inn
        trainer = FlowTrainer(inn, loader(), max_epochs=draw.choice([1, 2]), training_data="public")
        trainer.attach_all([TrainingCheckpoint(folder / "last.pt", resume=True)]).run()
        return trainer.network

    def merged(inn):
        other = learned(draw.choice(["public", "unprotected"]), seed=draw.randrange(99))
        if draw.random() < 0.5:
            other.add_training_events([new_event("flow", "dp", DP)])
        inn.load_state_dict(other.state_dict())
        return inn

    def saved(inn):
        path = folder / "model.pt"
        save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), path)
        return load_network(path)

    def refitted(inn):
        word, seed = draw.choice(["public", "unprotected"]), draw.randrange(9)
        fit_moments(inn, lambda: [(rows(seed), None)], training_data=word)
        return inn

    def edited(inn):
        weight(inn).data.add_(0.01)
        return inn

    def moved(inn):
        return draw.choice(list(WAYS.values()))(inn)

    trainings = [lambda inn: trained(inn, "public"), lambda inn: trained(inn, "unprotected"), privately, resumed]
    return [*trainings, privately, merged, saved, saved, refitted, edited, moved, moved]


def test_no_sequence_of_trainings_merges_resumes_saves_loads_and_edits_lowers_the_record(tmp_path):
    draw = random.Random(0)
    protections = set()
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        inn = network(number)
        chosen = steps(folder, draw)
        for _ in range(6):
            # What a step starts with, which it must not lose; the copy itself must not either.
            before = copy.deepcopy(inn)
            assert TrainingData.of(before) == TrainingData.of(inn)
            step = draw.choice(chosen)
            inn = step(inn)
            assert worse(before, inn), step
            if step.__name__ == "edited":
                assert protection(inn) == "unprotected"
            protections.add(protection(inn))
    assert protections == set(ORDER)


def test_a_release_by_a_loaded_file_states_the_record(tmp_path):
    inn = learned("public")
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), tmp_path / "model.pt")
    loaded = load_privatizer(tmp_path / "model.pt", SubsetSelection(2.0, num_candidates=64))
    assert loaded.guarantee.training_data == loaded.training_data == TrainingData.of(inn)
