# SPDX-License-Identifier: Apache-2.0
"""The trainer of levels: what each part sees, when it is done, and that the best of each is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader

from monai_cadp.engines import FlowEvaluator, GaussianNoise, LevelTrainer
from monai_cadp.handlers import ExportPrivatizer
from monai_cadp.networks import ConditionalINN
from monai_cadp.privacy import PriorOnly
from monai_cadp.release.checkpoint import load_network, load_privatizer

SMALL = {"num_levels": 2, "num_couplings": 2, "width": 16, "context_width": 16, "num_detail_couplings": 2}
# Four parts: the coarse image, two levels and the refiner.


def small_network(**options):
    torch.manual_seed(0)
    return ConditionalINN((16, 16), 1, num_classes=2, **SMALL, **options)


def smooth_images(count=24):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
    return [{"image": image, "label": index % 2} for index, image in enumerate(images)]


def trainer(network, epochs=6, **options):
    loader = DataLoader(smooth_images(), batch_size=8, shuffle=True)
    return LevelTrainer(network, loader, max_epochs=epochs, noise=GaussianNoise(0.02), **options)


def bits_of_parts(network):
    loader = DataLoader(smooth_images(), batch_size=24)
    evaluator = FlowEvaluator(network, loader, noise=GaussianNoise(0.02))
    evaluator.run()
    return [evaluator.state.metrics[f"bits_of_part_{part}"] for part in range(network.num_parts)]


@pytest.mark.slow
def test_every_part_learns():
    network = small_network()
    engine = trainer(network, epochs=30)
    engine.run()
    fitted = trainer(small_network(), epochs=1, learning_rate=1e-9)
    fitted.run()
    before, after = bits_of_parts(fitted.averaged_network), bits_of_parts(engine.averaged_network)
    assert all(late < early for early, late in zip(before, after, strict=True))


def test_a_part_is_done_at_its_end_and_the_others_go_on():
    network = small_network()
    engine = trainer(network, epochs=4, ends=[0.5, 0.5, 1.0, 0.5], weight_decay=0.0)
    states = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: states.append(copy.deepcopy(e.network.state_dict())))
    engine.run()
    changed = {
        network.part_of(name)
        for name, value in states[-1].items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, states[1][name])
    }
    assert changed == {2}


def test_parts_see_as_many_images_as_they_are_given():
    network, seen = small_network(), []
    plain = network.part_log_probs

    def watched(*args, **options):
        parts = plain(*args, **options)
        seen.append([len(part) for part in parts])
        return parts

    network.part_log_probs = watched
    trainer(network, epochs=1).run()
    trainer(network, epochs=1, images_per_part=[8, 3, 1, 2]).run()
    assert seen[:3] == [[8, 8, 4, 8]] * 3
    assert seen[3:] == [[8, 3, 1, 2]] * 3


def test_the_loss_is_that_of_the_flows():
    losses = []
    for refiner_width in (0, 16):
        torch.manual_seed(0)
        network = ConditionalINN((16, 16), 1, num_classes=2, **SMALL, refiner_width=refiner_width)
        engine = trainer(network, epochs=1)
        seen = []
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e, to=seen: to.append(e.state.output[0]["loss"]))
        engine.run()
        losses.append(seen[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_samples_vary_like_the_images_and_not_like_the_augmented_ones(tmp_path):
    plain = smooth_images(64)
    augmented = [{**item, "image": 3 * item["image"] + 1} for item in plain]
    for plain_data_loader, like in ((None, augmented), (DataLoader(plain, batch_size=16), plain)):
        engine = LevelTrainer(
            small_network(refiner_width=0),
            DataLoader(augmented, batch_size=16),
            max_epochs=1,
            plain_data_loader=plain_data_loader,
        )
        engine.attach_all([ExportPrivatizer(tmp_path / "model.pt", num_directions=4, num_samples=64)]).run()
        network = load_network(tmp_path / "model.pt")
        condition = torch.arange(400) % 2
        drawn = network.draw(torch.randn(400, network.num_latents), condition).mean((1, 2, 3))
        of_images = torch.stack([item["image"].mean() for item in like])
        assert abs(drawn.mean() - of_images.mean()) < 0.2 * of_images.mean()
        assert 0.7 < drawn.std() / of_images.std() < 1.4
        assert [event["kind"] for event in network.training_events].count("flow") == 1


def test_a_resumed_training_is_the_uninterrupted_one():
    whole = trainer(small_network(), epochs=3)
    whole.run()
    first = trainer(small_network(), epochs=3)
    saved = {}

    def stop(engine):
        if engine.state.epoch == 2:
            saved.update({name: copy.deepcopy(part.state_dict()) for name, part in engine.training_state().items()})
            engine.terminate()

    first.add_event_handler(Events.EPOCH_COMPLETED, stop)
    first.run()
    second = trainer(small_network(), epochs=3)
    for name, part in second.training_state().items():
        part.load_state_dict(saved[name])
    second.run()
    for name, parameter in whole.averaged_network.named_parameters():
        assert torch.equal(parameter, second.averaged_network.get_parameter(name)), name


def test_the_best_of_every_part_is_kept(tmp_path):
    network = small_network()
    engine = trainer(network, epochs=2, training_data="public")
    evaluator = FlowEvaluator(engine.averaged, DataLoader(smooth_images(), batch_size=24), noise=GaussianNoise(0.02))
    states = []

    def validated(evaluator):
        states.append(copy.deepcopy(engine.averaged_network.state_dict()))
        # The coarse part was better at first, and the last level later.
        evaluator.state.metrics |= {"bits_of_part_0": float(len(states)), "bits_of_part_2": -float(len(states))}

    evaluator.add_event_handler(Events.COMPLETED, validated)
    handler = ExportPrivatizer(tmp_path / "model.pt", evaluator=evaluator, num_directions=4, num_samples=32)
    handler.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run())
    engine.run()
    # Parts of two moments of a public training are a network of a public training.
    assert load_privatizer(tmp_path / "model.pt", PriorOnly()).training_data.protection == "public"
    for name, value in handler.best_state.items():
        if isinstance(value, torch.Tensor) and network.part_of(name) != 1:
            assert torch.equal(value, states[0 if network.part_of(name) == 0 else 1][name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ends": [1.0]}, "ends is .*expected 4 numbers"),
        ({"ends": [0.0, 1.0, 1.0, 1.0]}, "ends is "),
        ({"images_per_part": [1, 2]}, "images_per_part is "),
        ({"images_per_part": [1, 2, 0, 1]}, "images_per_part is "),
        ({"context_noise": -1.0}, "context_noise is "),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(small_network(), **options)


def test_what_is_exported_is_calibrated_on_the_images_of_validation(tmp_path):
    engine = trainer(small_network(), epochs=2)
    held_out = [{"image": 1.1 * item["image"], "label": item["label"]} for item in smooth_images()]
    loader = DataLoader(held_out, batch_size=8)
    evaluator = FlowEvaluator(engine.averaged, loader, noise=GaussianNoise(0.02))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run())
    ExportPrivatizer(tmp_path / "model.pt", evaluator, num_directions=2, num_samples=64).attach(engine)
    engine.run()
    network = load_network(tmp_path / "model.pt")
    assert bool((network.latent_deviations != 1).all())
    parts = zip(*[network.part_latents(network.encode(x, c)[0]) for x, c in evaluator.batches()()], strict=True)
    assert all(float(torch.cat(part).square().mean()) == pytest.approx(1, abs=1e-3) for part in parts)


def test_what_is_exported_draws_with_the_grain_the_range_and_the_histogram_of_the_images_as_they_are():
    network = small_network()
    engine = trainer(network, epochs=1, plain_data_loader=DataLoader(smooth_images(), batch_size=8))
    engine.run()
    engine.finish(network)
    images = torch.stack([item["image"] for item in smooth_images()])
    assert (float(network.lowest_value), float(network.highest_value)) == (float(images.min()), float(images.max()))
    assert bool((network.spectrum_gains != 1).any()) and bool((network.matched_values != 0).any())
    left = small_network()
    engine = trainer(left, epochs=1)
    engine.run()
    engine.finish(left)
    assert bool((left.spectrum_gains == 1).all()) and bool((left.matched_values == 0).all())
