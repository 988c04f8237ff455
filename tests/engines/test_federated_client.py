# SPDX-License-Identifier: Apache-2.0
"""Two sites train one network, no image leaves either, and each knows what it has spent."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.fl.utils.exchange_object import ExchangeObject

from monai_cadp.data import Digits
from monai_cadp.engines import FederatedFlowClient, average_weights, bits_per_dimension, take_weights
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel, fit_moments
from monai_cadp.privacy import TrainingData
from monai_cadp.release.checkpoint import save_model

CONFIGS = Path(__file__).parents[2] / "bundles" / "cadp_2d" / "configs"
SMALL = {"num_levels": 0, "rank": 8, "num_couplings": 2, "width": 16}


def digits(split):
    items = list(Digits(split))
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])


@pytest.fixture
def sites(tmp_path):
    """Two archives with the even and the odd digits, and the checkpoint of a network of public images."""
    images, labels = digits("train")
    for site in range(2):
        mine = labels % 2 == site
        arrays = {"train_images": (255 * images[mine, 0]).byte().numpy(), "train_labels": labels[mine, None].numpy()}
        np.savez(tmp_path / f"{site}.npz", **arrays)
    torch.manual_seed(0)
    network = ConditionalINN((8, 8), 1, num_classes=10, **SMALL)
    images, labels = digits("val")
    # Others than those of the sites: mirrored.
    fit_moments(network, lambda: [(images.flip(3), labels)], training_data="public")
    save_model(TrainedModel(network, ContentBasis.leading(network, 4)), tmp_path / "public.pt")
    return tmp_path


def client(sites, site, *overlays, **options):
    chosen = {"dataset_dir": str(sites / f"{site}.npz"), "spatial_shape": [8, 8], "max_epochs": 4, **options}
    files = [str(CONFIGS / f"{name}.yaml") for name in ("train", *overlays)]
    # The network of the server, whose training data a private training asks for.
    chosen["network"] = {"_target_": "monai_cadp.release.checkpoint.load_network", "path": str(sites / "public.pt")}
    checkpoint = sites / f"{site}.pt" if overlays else None
    made = FederatedFlowClient(files, local_epochs=2, checkpoint=checkpoint, **chosen)
    made.initialize()
    return made


def weights(network):
    return {name: value.numpy() for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}


def exchanged(network):
    return ExchangeObject(weights=weights(network), statistics={"training_events": list(network.training_events)})


def federated(clients, start, rounds=2):
    """Average the weights of the clients after every round, by the steps that they made."""
    current = exchanged(start)
    for _ in range(rounds):
        for one in clients:
            one.train(current)
        sent = [one.get_weights() for one in clients]
        current = average_weights(sent)
    take_weights(start, current)
    return sent


def bits(network):
    with torch.no_grad():
        return float(bits_per_dimension(network, *digits("test")).mean())


@pytest.mark.slow
def test_a_network_learns_from_two_sites_and_only_weights_travel(sites):
    clients = [client(sites, site, learning_rate=0.3, max_epochs=8) for site in range(2)]
    network = clients[0].trainer.network

    start = copy.deepcopy(network)
    before = bits(start)
    sent = federated(clients, start, rounds=4)
    assert bits(start) < before - 0.02
    for one in sent:
        assert one.weights.keys() == weights(start).keys() and one.metrics is None and one.optim is None
        assert list(one.statistics) == ["num_executed_iterations", "training_events"]
    # Linear parts are those of the server.
    assert torch.equal(clients[0].trainer.network.whitening.basis, start.whitening.basis)
    assert clients[0].guarantee() is None


@pytest.mark.slow
def test_each_site_states_what_it_has_spent_in_all_rounds(sites):
    private = {"moments": None, "batch_size": 100, "epsilon": 4.0, "delta": 1e-4}
    clients = [client(sites, site, "train_dp", **private) for site in range(2)]

    federated(clients, copy.deepcopy(clients[0].trainer.network), rounds=1)
    # Started again, they go on with what is left.
    clients = [client(sites, site, "train_dp", **private) for site in range(2)]
    assert [one.trainer.state.epoch for one in clients] == [2, 2]
    averaged = copy.deepcopy(clients[0].trainer.network)
    federated(clients, averaged, rounds=1)
    # Every site is one training, in however many rounds and processes; both together are two.
    trained = TrainingData.of(averaged)
    spent = sum(one.guarantee()["epsilon"] for one in clients)
    assert trained.protection == "dp" and trained.guarantee["epsilon"] == pytest.approx(spent, rel=1e-12)
    for one in clients:
        assert 3.9 < one.guarantee()["epsilon"] <= 4.0
    with pytest.raises(ValueError, match="epochs are over"):
        clients[0].train(ExchangeObject(weights=weights(clients[0].trainer.network)))


@pytest.mark.parametrize("statistics", [{}, None, {"training_events": None}, {"training_events": []}])
def test_weights_of_a_server_without_a_record_count_as_unprotected(sites, statistics):
    one = client(sites, 0)
    network = one.trainer.network
    sent = {name: value + 0.01 for name, value in weights(network).items()}
    take_weights(network, ExchangeObject(weights=sent, statistics=statistics))
    assert TrainingData.of(network).protection == "unprotected"


def test_one_site_without_a_record_makes_the_average_unprotected(sites):
    one = client(sites, 0)
    sent = one.get_weights()
    older = ExchangeObject(weights=sent.weights, statistics={"num_executed_iterations": 3})
    network = one.trainer.network
    take_weights(network, average_weights([sent, sent]))
    assert TrainingData.of(network).protection == "public"
    take_weights(network, average_weights([sent, older]))
    assert TrainingData.of(network).protection == "unprotected"


def test_sites_with_other_networks_and_new_networks_are_refused(sites, refused):
    one = client(sites, 0)
    with refused(ValueError, "another network"):
        one.train(ExchangeObject(weights={"a": np.zeros(3)}))
    new = weights(ConditionalINN((8, 8), 1, num_classes=10, **SMALL))
    with refused(ValueError, "is new"):
        one.train(ExchangeObject(weights=new))
    with refused(ValueError, "local_epochs"):
        FederatedFlowClient("train.yaml", local_epochs=0)
    with refused(ValueError, "initialised twice"):
        one.initialize()
    private = {"batch_size": 100, "epsilon": 4.0, "delta": 1e-4, "dataset_dir": str(sites / "0.npz")}
    files = [str(CONFIGS / f"{name}.yaml") for name in ("train", "train_dp")]
    with refused(ValueError, "without a checkpoint"):
        FederatedFlowClient(files, spatial_shape=[8, 8], **private).initialize()
    with refused(ValueError, "not initialised"):
        FederatedFlowClient("train.yaml").get_weights()
