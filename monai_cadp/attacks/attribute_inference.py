# SPDX-License-Identifier: Apache-2.0
"""What are they like? An attacker who learns on other people's releases to tell an attribute of the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from monai_cadp.extras import extra
from monai_cadp.metrics.auc import auc
from monai_cadp.metrics.intervals import Estimate, bootstrap

__all__ = ["AttributeInferenceResult", "attribute_inference"]

NUM_COMPONENTS = 64
# A pixel that nearly never varies is far out where it does.
LARGEST_DEVIATIONS = 5.0
FOLDS = 3
STRENGTHS = (0.1, 1.0, 10.0)
SMALLEST_DEVIATION = 1e-6


class AttributeInferenceResult(NamedTuple):
    """How well an attacker tells an attribute of people from their releases, beside what their public label tells.

    Args:
        figure: which one it is: "auc" for two classes, "accuracy" for more, "r2" for a number.
        from_release: the figure of an attacker who sees the release and the public label.
        from_label: the figure of one who sees the public label alone.
        gain: the first minus the second, on the same people.
    """

    figure: str
    from_release: Estimate
    from_label: Estimate
    gain: Estimate


def attribute_inference(
    shadow_releases: Tensor,
    shadow_attributes: Tensor,
    releases: Tensor,
    attributes: Tensor,
    *,
    shadow_labels: Tensor | None = None,
    labels: Tensor | None = None,
    people: Tensor | None = None,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> AttributeInferenceResult:
    r"""Return how well an attribute of originals is told from their releases by who has learnt it from other people's.

    Releases are standardised and reduced to their 64 principal components, beside which the public label stands. Of
    linear models and support vector machines with a radial kernel the one that is best in cross-validation on the
    shadows attacks. Attributes of floating-point type are numbers; all others are classes.

    Args:
        shadow_releases: releases (m, C, \*spatial) of other people, or features of them (m, k).
        shadow_attributes: of their originals (m,).
        releases: of the attacked people (n, C, \*spatial) or (n, k).
        attributes: of their originals (n,).
        shadow_labels: what is public of the others: classes (m,) or numbers (m, j); None for nothing.
        labels: what is public of the attacked: (n,) or (n, j).
        people: whose each attacked release is (n,), as numbers; None for n people.
        num_bootstraps: how often attacked people are drawn again for the intervals.
        seed: of all drawing.

    Returns:
        The figures with their intervals, by resampling the attacked people.

    Raises:
        ValueError: if shapes do not fit, only one of the labels came, a number is not finite, or the shadows have fewer
            than two classes of the attribute, or fewer than three people of one.

    References:
        Yeom, Giacomelli, Fredrikson, Jha: Privacy risk in machine learning, CSF 2018 (the gain over what is public).
        Stadler, Oprisanu, Troncoso: Synthetic data - anonymisation groundhog day, USENIX Security 2022.

    Example:
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> bright = (x.sum(1) > 0).long()
        >>> result = attribute_inference(x[:100], bright[:100], x[100:], bright[100:], num_bootstraps=20)
        >>> result.figure, result.from_release.value > 0.95, result.from_label.value
        ('auc', True, 0.5)
    """
    _check(shadow_releases, shadow_attributes, shadow_labels)
    _check(releases, attributes, labels)
    if (labels is None) != (shadow_labels is None) or shadow_releases.shape[1:] != releases.shape[1:]:
        raise ValueError(
            f"Shadows came as {tuple(shadow_releases.shape)} {'without' if shadow_labels is None else 'with'} labels, "
            f"releases as {tuple(releases.shape)} {'without' if labels is None else 'with'}; expected the same of both."
        )
    with extra("studies", "Attribute inference"):
        import sklearn  # noqa: F401
    # scikit-learn works on the CPU.
    shadow_releases, shadow_attributes, releases, attributes = (
        x.cpu() for x in (shadow_releases, shadow_attributes, releases, attributes)
    )
    if labels is not None and shadow_labels is not None:
        shadow_labels, labels = shadow_labels.cpu(), labels.cpu()
    # Folds of the cross-validation are neighbours; people may have come sorted.
    order = torch.randperm(len(shadow_releases), generator=torch.Generator().manual_seed(seed))
    known, truth = shadow_attributes[order].numpy(), attributes.numpy()
    if shadow_attributes.is_floating_point():
        # R2 does not change, and machines expect numbers around 0.
        mean, deviation = known.mean(), max(known.std(), SMALLEST_DEVIATION)
        known, truth = (known - mean) / deviation, (truth - mean) / deviation
        kind = NUMBER
    else:
        kind = _kind_of_classes(known, truth)
    shadow_public, public = _public(shadow_labels, labels, len(order), len(releases))
    shadow_looks, looks = _components(shadow_releases, releases, seed)
    by_label = kind.guesses(shadow_public[order], known, public)
    by_release = kind.guesses(
        np.concatenate([shadow_looks, shadow_public], axis=1)[order], known, np.concatenate([looks, public], axis=1)
    )

    def estimate(figure: Callable[[np.ndarray], float]) -> Estimate:
        resampled: dict[str, Any] = {"people": people, "num_bootstraps": num_bootstraps, "seed": seed}
        return bootstrap(lambda drawn: figure(drawn.numpy()), len(truth), **resampled)

    def told(guess: np.ndarray, drawn: np.ndarray) -> float:
        return kind.score(truth[drawn], guess[drawn])

    return AttributeInferenceResult(
        kind.figure,
        estimate(lambda drawn: told(by_release, drawn)),
        estimate(lambda drawn: told(by_label, drawn)),
        estimate(lambda drawn: told(by_release, drawn) - told(by_label, drawn)),
    )


class _Kind(NamedTuple):
    """A kind of attribute: how it is judged, and learnt."""

    figure: str
    score: Callable[[np.ndarray, np.ndarray], float]
    scoring: str
    guess: str
    models: Callable[[], Sequence[Any]]

    def guesses(self, x: np.ndarray, known: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Learn from x what is known, with the best of the models, and guess from what is seen."""
        from sklearn.base import clone
        from sklearn.model_selection import cross_val_score

        best = max(
            self.models(), key=lambda model: cross_val_score(model, x, known, cv=FOLDS, scoring=self.scoring).mean()
        )
        return getattr(clone(best).fit(x, known), self.guess)(seen)


def _auc(truth: np.ndarray, guess: np.ndarray) -> float:
    # The classifiers of scikit-learn mean the larger of two classes.
    meant = truth == truth.max()
    return auc(torch.as_tensor(guess[meant]), torch.as_tensor(guess[~meant]))


def _accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    return float((truth == guess).mean())


def _r2(truth: np.ndarray, guess: np.ndarray) -> float:
    # scikit-learn's checks take twenty times as long as this, thousands of times.
    variance = float(np.square(truth - truth.mean()).sum())
    return 1 - float(np.square(truth - guess).sum()) / variance if variance > 0 else 0.0


def _classifiers() -> list[Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    linear = (LogisticRegression(C=strength, max_iter=1000) for strength in STRENGTHS)
    return [*linear, *(SVC(C=strength) for strength in STRENGTHS)]


def _regressions() -> list[Any]:
    from sklearn.linear_model import Ridge
    from sklearn.svm import SVR

    return [*(Ridge(alpha=1 / strength) for strength in STRENGTHS), *(SVR(C=strength) for strength in STRENGTHS)]


TWO_CLASSES = _Kind("auc", _auc, "roc_auc", "decision_function", _classifiers)
CLASSES = _Kind("accuracy", _accuracy, "accuracy", "predict", _classifiers)
NUMBER = _Kind("r2", _r2, "r2", "predict", _regressions)


def _kind_of_classes(known: np.ndarray, truth: np.ndarray) -> _Kind:
    classes, counts = np.unique(known, return_counts=True)
    if len(classes) < 2 or counts.min() < FOLDS:
        raise ValueError(
            f"The shadows have {len(classes)} classes of the attribute, the rarest with {counts.min()} people; "
            f"expected 2 classes or more, of {FOLDS} people or more each."
        )
    return TWO_CLASSES if len(np.union1d(classes, truth)) == 2 else CLASSES


def _components(shadows: Tensor, releases: Tensor, seed: int) -> list[np.ndarray]:
    """Principal components of the shadows' looks, in units of the first one's deviation."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    x, y = shadows.flatten(1).numpy(), releases.flatten(1).numpy()
    bounds = {"a_min": -LARGEST_DEVIATIONS, "a_max": LARGEST_DEVIATIONS}
    looks = make_pipeline(
        StandardScaler(),
        FunctionTransformer(np.clip, kw_args=bounds),
        PCA(min(NUM_COMPONENTS, *x.shape), random_state=seed),
    ).fit(x)
    components = looks.transform(x)
    scale = max(float(components[:, 0].std()), SMALLEST_DEVIATION)
    return [components / scale, looks.transform(y) / scale]


def _public(shadow_labels: Tensor | None, labels: Tensor | None, *counts: int) -> list[np.ndarray]:
    """What is public, as columns; of who has nothing public, one that says nothing."""
    if shadow_labels is None or labels is None:
        return [np.zeros((count, 1)) for count in counts]
    both = torch.cat([shadow_labels, labels])
    if not both.is_floating_point():
        both = one_hot(both.unique(return_inverse=True)[1])
    return [part.reshape(len(part), -1).double().numpy() for part in both.split(counts)]


def _check(releases: Tensor, attributes: Tensor, labels: Tensor | None) -> None:
    if attributes.shape != releases.shape[:1] or len(attributes) == 0 or releases.ndim < 2:
        raise ValueError(
            f"Releases came in the shape {tuple(releases.shape)} and attributes in {tuple(attributes.shape)}; expected "
            r"(n, C, \*spatial) or (n, k), and (n,)."
        )
    if labels is not None and len(labels) != len(releases):
        raise ValueError(f"{len(labels)} labels came for {len(releases)} releases; expected one for each.")
    if not releases.isfinite().all() or not attributes.isfinite().all():
        raise ValueError("A release or attribute is NaN or infinite; expected numbers.")
