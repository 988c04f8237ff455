# SPDX-License-Identifier: Apache-2.0
"""The metric forms of content kept are equal to the functions, however the images come."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from ignite.engine import Engine
from monai.data import decollate_batch

from monai_cadp.handlers import ReleaseMetric
from monai_cadp.metrics import (
    PixelCosine,
    WithinClassCorrelation,
    pixel_cosine,
    shape_features,
    within_class_correlation,
)


def pairs(count=60):
    generator = torch.Generator().manual_seed(0)
    original, noise = torch.rand(2, count, 1, 8, 8, generator=generator)
    labels = torch.arange(count) % 3
    return (0.5 * original + 0.5 * noise + 0.3 * labels[:, None, None, None]), original, labels


RELEASED, ORIGINAL, LABELS = pairs()
CORRELATION = within_class_correlation(shape_features(ORIGINAL), shape_features(RELEASED), LABELS)
COSINE = pixel_cosine(ORIGINAL, RELEASED)


def batches(size):
    return zip(RELEASED.split(size), ORIGINAL.split(size), LABELS.split(size), strict=True)


@pytest.mark.parametrize("size", [7, 60])
def test_batches_are_gathered_to_what_the_function_gives(size):
    correlation, cosine = WithinClassCorrelation(shape_features), PixelCosine()
    for released, original, labels in batches(size):
        correlation(y_pred=released, y=original, condition=labels)
        cosine(y_pred=released, y=original)
    torch.testing.assert_close(correlation.aggregate(), CORRELATION)
    assert cosine.aggregate() == pytest.approx(COSINE)
    without_classes = within_class_correlation(shape_features(ORIGINAL), shape_features(RELEASED))
    assert (without_classes - CORRELATION).abs().max() > 0.01


def test_mean_of_batches_is_not_what_is_measured():
    """The negative control: figures of batches, averaged."""
    means = [pixel_cosine(original, released) for released, original, _ in batches(7)]
    assert abs(sum(means) / len(means) - COSINE) > 0.005


def test_lists_of_items_are_taken_as_batches_are():
    correlation, cosine = WithinClassCorrelation(shape_features), PixelCosine()
    correlation(y_pred=decollate_batch(RELEASED), y=decollate_batch(ORIGINAL), condition=decollate_batch(LABELS))
    cosine(y_pred=list(RELEASED), y=list(ORIGINAL))
    torch.testing.assert_close(correlation.aggregate(), CORRELATION)
    assert cosine.aggregate() == pytest.approx(COSINE)


def test_several_labels_are_gathered_by_rows():
    several = torch.stack([LABELS % 2, LABELS // 2], dim=1).float()
    expected = within_class_correlation(shape_features(ORIGINAL), shape_features(RELEASED), several)
    for form in (lambda x: x, decollate_batch):
        correlation = WithinClassCorrelation(shape_features)
        correlation(y_pred=form(RELEASED), y=form(ORIGINAL), condition=form(several))
        torch.testing.assert_close(correlation.aggregate(), expected)


def test_after_a_reset_everything_is_new(refused):
    cosine = PixelCosine()
    cosine(y_pred=RELEASED, y=1 - ORIGINAL)
    cosine.reset()
    with refused(ValueError, "No release came"):
        cosine.aggregate()
    cosine(y_pred=RELEASED, y=ORIGINAL)
    assert cosine.aggregate() == pytest.approx(COSINE)


def test_a_correlation_within_classes_needs_the_classes():
    with pytest.raises(TypeError, match="condition"):
        WithinClassCorrelation(shape_features)(y_pred=RELEASED, y=ORIGINAL)


def test_an_engine_measures_every_epoch_and_keeps_no_image():
    engine = Engine(lambda engine, batch: {"all": batch})
    ReleaseMetric(WithinClassCorrelation(shape_features), lambda output: output["all"]).attach(engine, "kept")
    ReleaseMetric(PixelCosine(), lambda output: output["all"]).attach(engine, "cosine")
    state = engine.run(list(batches(7)), max_epochs=2)
    torch.testing.assert_close(state.metrics["kept"], CORRELATION)
    assert state.metrics["cosine"] == pytest.approx(COSINE)
    assert not hasattr(state, "metric_details")


SCRIPT = """
import sys
import torch
import torch.distributed as dist
from monai_cadp.metrics import PixelCosine, WithinClassCorrelation, shape_features

folder = sys.argv[1]
dist.init_process_group("gloo")
released, original, labels = torch.load(f"{folder}/pairs.pt", weights_only=True)
# One rank has fewer.
mine = slice(0, 25) if dist.get_rank() == 0 else slice(25, None)
correlation, cosine = WithinClassCorrelation(shape_features), PixelCosine()
correlation(y_pred=released[mine], y=original[mine], condition=labels[mine])
cosine(y_pred=released[mine], y=original[mine])
torch.save((correlation.aggregate(), cosine.aggregate()), f"{folder}/figures-{dist.get_rank()}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_have_the_figures_of_all(tmp_path):
    torch.save((RELEASED, ORIGINAL, LABELS), tmp_path / "pairs.pt")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        correlation, cosine = torch.load(tmp_path / f"figures-{rank}.pt", weights_only=True)
        torch.testing.assert_close(correlation, CORRELATION)
        assert cosine == pytest.approx(COSINE)
