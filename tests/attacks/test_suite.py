# SPDX-License-Identifier: Apache-2.0
"""Nothing that is shipped goes without an audit."""

from __future__ import annotations

import json

import pytest

import monai_cadp.privacy
from monai_cadp.attacks import all_controls
from monai_cadp.attacks.suite import audit_shipped, shipped_mechanisms, shipped_privatizers, small_privatizer
from monai_cadp.privacy import Mechanism


def test_every_mechanism_is_audited():
    public = {getattr(monai_cadp.privacy, name) for name in monai_cadp.privacy.__all__}
    shipped = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Mechanism)} - {Mechanism}
    audited = {**shipped_mechanisms(0.0), **shipped_mechanisms(2.0)}
    assert {type(mechanism) for mechanism in audited.values()} == shipped


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_all_of_a_budget_is_what_is_audited(epsilon):
    for mechanism in shipped_mechanisms(epsilon).values():
        assert mechanism.epsilon == epsilon
    for privatizer in shipped_privatizers(epsilon).values():
        assert privatizer.guarantee.epsilon == epsilon


def test_a_mechanism_decides_how_many_directions_its_small_privatizer_has():
    for control in all_controls():
        assert small_privatizer(control.broken).content.num_directions == control.broken.num_directions


@pytest.fixture(scope="module")
def report():
    """Far too few trials, for an audit of what spends nothing and of one control."""
    (control,) = [control for control in all_controls() if control.name == "noise reused across images"]
    return audit_shipped(400, 20, failure_rate=1e-3, epsilons=(), controls=[control])


@pytest.mark.slow
def test_the_report_is_plain_data(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_report_says_what_was_audited_where_and_what_was_caught(report):
    assert [(row["name"], row["level"]) for row in report["audits"]] == [
        ("PriorOnly", "latent"),
        ("PriorOnly", "image"),
    ]
    assert [row["contradicted"] for row in report["audits"]] == [False, False]
    assert [row["level"] for row in report["controls"]] == ["latent", "image"]
    assert all(row["contradicted"] and row["true_epsilon"] is None for row in report["controls"])


def test_all_audits_together_share_the_failure_rate(report):
    rates = [row["failure_rate"] for row in [*report["audits"], *report["controls"]]]
    assert sum(rates) == pytest.approx(report["failure_rate"]) and len(set(rates)) == 1


@pytest.mark.slow
def test_an_interrupted_audit_goes_on_and_repeats_nothing(tmp_path):
    """Whoever could repeat an audit could choose its outcome."""
    (control,) = [control for control in all_controls() if control.name == "noise reused across images"]
    options = {"epsilons": (), "controls": [control], "finished": tmp_path / "finished.jsonl"}
    whole = audit_shipped(400, 20, failure_rate=1e-3, **options)
    head, first, second, third, fourth = options["finished"].read_text().splitlines(keepends=True)
    options["finished"].write_text(head + first + second + third[:-20])
    resumed = audit_shipped(400, 20, failure_rate=1e-3, **options)
    assert resumed["audits"] == whole["audits"]
    assert options["finished"].read_text().splitlines(keepends=True)[:3] == [head, first, second]
    assert len(options["finished"].read_text().splitlines()) == 5

    other = audit_shipped(400, 20, failure_rate=1e-2, **options)
    assert {row["failure_rate"] for row in other["audits"]} == {1e-2 / 4}
