# SPDX-License-Identifier: Apache-2.0
"""Whether attacks contradict what a study's releases promise."""

from __future__ import annotations

from typing import Any

from monai_cadp.attacks import audit_releaser
from monai_cadp.attacks.audit import MIN_TRIALS
from monai_cadp.privacy.auditing import counts_needed
from monai_cadp.studies.variant import Variant

__all__ = ["ReleaseAudit"]

# Of the failure rate of an audit, 1e-6.
SHARE_OF_A_GAME = 1e-8


class ReleaseAudit:
    """The audit from image to image of every releaser of a study whose promise so many trials can contradict.

    Args:
        trials: of each input in every attack, many in each call.
        trials_alone: the same, one in each call.

    Raises:
        ValueError: if there are too few trials.
    """

    def __init__(self, trials: int = 3000, trials_alone: int = 50) -> None:
        if min(trials, trials_alone) < MIN_TRIALS:
            raise ValueError(f"{min(trials, trials_alone)} trials were asked for; expected {MIN_TRIALS} or more.")
        self.trials, self.trials_alone = trials, trials_alone

    def applies(self, variant: Variant) -> bool:
        """Return whether images are released by a releaser, and the trials could contradict what it promises."""
        # Half of the trials are for the attacker to learn from.
        return variant.releaser is not None and self.trials >= 2 * counts_needed(variant.epsilon, SHARE_OF_A_GAME)

    def __call__(self, variant: Variant, quick: bool = False) -> list[dict[str, Any]]:
        """Return one row with the promised epsilon, the measured one and the most that could have been measured.

        Args:
            variant: what is audited.
            quick: whether few trials are enough.
        """
        assert variant.releaser is not None
        counts = (MIN_TRIALS, MIN_TRIALS) if quick else (self.trials, self.trials_alone)
        result = audit_releaser(variant.releaser, *counts, name=variant.name, progress=True)
        return [
            {
                "audited": variant.name,
                "promised": result.epsilon,
                "measured": round(result.measured, 3),
                "most that these trials could measure": round(result.ceiling, 3),
                "verdict": "contradicted" if result.is_contradicted else "kept",
            }
        ]
