# SPDX-License-Identifier: Apache-2.0
"""The audit of everything that is shipped, and of its negative controls."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from monai_cadp.attacks.audit import TRIALS_ALONE, AuditResult, audit_mechanism, audit_releaser
from monai_cadp.attacks.negative_controls import NegativeControl, all_controls
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    AttributeResponse,
    GaussianMechanism,
    LaplaceMechanism,
    Mechanism,
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.release.privatizer import Privatizer

__all__ = ["audit_shipped", "shipped_mechanisms", "shipped_privatizers", "small_privatizer"]

# So many that the closest negative controls of either kind are missed with a probability far below 1e-6.
CONTROL_TRIALS, CONTROL_TRIALS_ALONE = 40_000, 1000
EPSILONS = (1.0, 2.0, 4.0, 8.0)
DELTA = 1e-5
NUM_CANDIDATES = 64
NUM_CLASSES = 3


def audit_shipped(
    trials: int | None = None,
    trials_alone: int | None = None,
    failure_rate: float = 1e-6,
    *,
    epsilons: Sequence[float] = EPSILONS,
    controls: Sequence[NegativeControl] | None = None,
    finished: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Audit every mechanism and every kind of privatizer at several budgets, and every negative control.

    Args:
        trials: of each input in every game, many in each call; None for 20,000, and as many in the best one as nine
            tenths of the promise need, and 40,000 for negative controls.
        trials_alone: of each input in every game, one in each call; None for 500, and 1000 for negative controls.
        failure_rate: of all audits together, shared evenly.
        epsilons: budgets; 0 is always among them.
        controls: what must be caught; None for ``all_controls``.
        finished: file that keeps what is finished, line by line: an interrupted call with the same arguments goes on
            from there, and no audit is run twice, so that none is chosen by its outcome. None keeps nothing.
        progress: show progress bars.

    Returns:
        Plain data: the failure rate, ``audits`` of what is shipped, and ``controls``.

    Raises:
        ValueError: if a number is out of its range.
    """
    audits: list[partial[AuditResult]] = []
    counts = (trials, trials_alone or TRIALS_ALONE)
    for epsilon in (0.0, *epsilons):
        for name, mechanism in shipped_mechanisms(epsilon).items():
            audits.append(partial(audit_mechanism, mechanism, *counts, name=name))
        for name, privatizer in shipped_privatizers(epsilon).items():
            audits.append(partial(audit_releaser, privatizer, *counts, name=name))
    num_honest = len(audits)
    true_epsilons: list[float | None] = []
    counts = (trials or CONTROL_TRIALS, trials_alone or CONTROL_TRIALS_ALONE)
    for control in all_controls() if controls is None else controls:
        attacks = [partial(audit_mechanism, control.broken, *counts, name=control.name)]
        if control.reaches_images:
            attacks.append(partial(audit_releaser, small_privatizer(control.broken), *counts, name=control.name))
        audits += attacks
        # JSON knows no infinity.
        true_epsilon = round(control.true_epsilon, 4) if math.isfinite(control.true_epsilon) else None
        true_epsilons += [true_epsilon] * len(attacks)
    share = failure_rate / len(audits)
    chosen = [importlib.metadata.version("monai_cadp"), trials, trials_alone, failure_rate, list(epsilons)]
    rows = _finished([*chosen, [audit.keywords["name"] for audit in audits]], finished)
    for audit in tqdm(audits[len(rows) :], "audits", len(audits), initial=len(rows), disable=not progress):
        rows.append(audit(failure_rate=share, progress=progress).to_dict())
        if finished is not None:
            with finished.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
    return {
        "failure_rate": failure_rate,
        "audits": rows[:num_honest],
        "controls": [{**row, "true_epsilon": true} for row, true in zip(rows[num_honest:], true_epsilons, strict=True)],
    }


def _finished(chosen: list[Any], file: Path | None) -> list[dict[str, Any]]:
    """Return the audits that a call with the same arguments has finished; begin the file anew if it is of another."""
    if file is None:
        return []
    head = json.dumps(chosen)
    found, *lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else [""]
    # The last line may have been cut off.
    lines = [line for line in lines if line.endswith("\n")] if found == head + "\n" else []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join([head + "\n", *lines]), encoding="utf-8")
    return [json.loads(line) for line in lines]


def shipped_mechanisms(epsilon: float) -> dict[str, Mechanism]:
    """Return every mechanism with this budget, by name; with a budget of 0, the one that spends nothing.

    Example:
        >>> list(shipped_mechanisms(0.0))
        ['PriorOnly']
    """
    if epsilon == 0:
        return {"PriorOnly": PriorOnly()}
    return {
        "SubsetSelection": SubsetSelection(epsilon, num_candidates=NUM_CANDIDATES),
        "GaussianMechanism": GaussianMechanism(epsilon, DELTA, clipping_bound=1.0),
        "LaplaceMechanism": LaplaceMechanism(epsilon, clipping_bound=1.0),
        "RandomizedResponse": RandomizedResponse(epsilon, NUM_CLASSES),
        "AttributeResponse": AttributeResponse(epsilon, NUM_CLASSES),
    }


def shipped_privatizers(epsilon: float) -> dict[str, Privatizer]:
    """Return a privatizer with every mechanism, with declared content, and with private labels, by name.

    Example:
        >>> list(shipped_privatizers(0.0))
        ['PriorOnly']
    """
    if epsilon == 0:
        return {"PriorOnly": small_privatizer(PriorOnly())}
    declared = DeclaredContent(_mean_and_deviation, num_candidates=NUM_CANDIDATES)
    half = shipped_mechanisms(epsilon / 2)["SubsetSelection"]
    label = RandomizedResponse(epsilon / 2, NUM_CLASSES)
    return {
        **{
            name: small_privatizer(mechanism)
            for name, mechanism in shipped_mechanisms(epsilon).items()
            if not isinstance(mechanism, RandomizedResponse | AttributeResponse)
        },
        "SubsetSelection, declared content": small_privatizer(SubsetSelection(epsilon), declared),
        "SubsetSelection, private label": small_privatizer(half, label_mechanism=label),
    }


def small_privatizer(
    mechanism: Mechanism,
    content: DeclaredContent | None = None,
    label_mechanism: RandomizedResponse | None = None,
) -> Privatizer:
    """Return a privatizer of 4 x 4 images of three classes, whose network is no special one in any respect.

    Args:
        mechanism: what spends the budget.
        content: declared content; None for a basis of as many directions as the mechanism was configured for, or two.
        label_mechanism: randomizes labels; None for public ones.

    Returns:
        The privatizer.

    Example:
        >>> small_privatizer(PriorOnly())(torch.rand(2, 1, 4, 4), torch.tensor([0, 2])).shape
        torch.Size([2, 1, 4, 4])
    """
    sizes = {"num_levels": 1, "rank": 4, "num_couplings": 2, "width": 16, "num_detail_couplings": 1, "detail_width": 8}
    inn = ConditionalINN((4, 4), 1, NUM_CLASSES, **sizes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in inn.parameters():
            # No coupling stays the identity that it starts as.
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    chosen = content or ContentBasis.fit(inn, mechanism.num_directions or 2, num_samples=256)
    return Privatizer(inn, mechanism, chosen, label_mechanism=label_mechanism)


def _mean_and_deviation(x: Tensor) -> Tensor:
    return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)
