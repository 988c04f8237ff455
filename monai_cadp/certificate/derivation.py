# SPDX-License-Identifier: Apache-2.0
"""The epsilons of released cards anew, by a way that shares no code with the one by which they were stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from monai_cadp.certificate.document import UNITS, CertificateError, canonical, integer, number, parsed
from monai_cadp.certificate.enclosure import at_most_exp, exp_enclosure, log_above
from monai_cadp.certificate.noise import AGREEMENT, composed_gaussian_epsilon, gaussian_epsilon
from monai_cadp.certificate.shuffled import Choice, set_delta
from monai_cadp.certificate.training import derived_training

__all__ = ["Derived", "derived", "derived_set"]

FIELDS = {"epsilon", "delta", "mechanism", "unit", "relation", "parameters", "public", "training_data", "fingerprint"}
WORDS = 2**64
LATTICE_BITS = 20
EXACT = "exact rational arithmetic"
MOST_PARTS = 4096
# Of equal parts whose exact composition is derived, the number and the epsilon: its terms have as many digits.
MOST_EQUAL, LARGEST_LOCAL = 1024, 40
# Of a release that hides among others: with more, the chance of it is too small for transforms.
LARGEST_HIDDEN = 24


class Derived(NamedTuple):
    """What a guarantee was found to promise."""

    epsilon: Fraction
    delta: Fraction
    how: str


class _Leaf(NamedTuple):
    """A single mechanism within a guarantee, for composition."""

    derived: Derived
    # Noise deviation over sensitivity, squared, of a Gaussian mechanism.
    squared_noise: Fraction | None


def derived(guarantee: Mapping[str, Any], name: str) -> Derived:
    """Derive the epsilon of a guarantee from the integers of its mechanism.

    Args:
        guarantee: plain data as :func:`~monai_cadp.certificate.document.parsed` reads them.
        name: of the guarantee, for errors.

    Returns:
        Epsilon and delta, not above what is stated.

    Raises:
        CertificateError: if the guarantee is not usable, its mechanism is unknown, the integers of the mechanism are
            missing, or the epsilon that they have is above the stated one.

    Example:
        >>> response = {"num_classes": 3, "threshold": str(2**63)}
        >>> card = {"epsilon": "0.7", "delta": "0.0", "mechanism": "RandomizedResponse", "parameters": response,
        ...         "unit": "image", "relation": "replace-one", "public": [], "training_data": {}}
        >>> float(derived(card, "the card").epsilon)
        0.693147181
        >>> derived({**card, "epsilon": "0.6"}, "the card")
        Traceback (most recent call last):
        monai_cadp.certificate.document.CertificateError: the card states epsilon 0.6, but its integers give 0.693...
    """
    return _cached(canonical(guarantee), name)


def derived_set(guarantee: Mapping[str, Any], local: Mapping[str, Any], largest: int, name: str) -> Derived:
    """Derive the epsilon of a whole shuffled set.

    Args:
        guarantee: of the set.
        local: the guarantee of every release in it.
        largest: how many releases of the folder share their public facts, at least.
        name: of the set's guarantee, for errors.

    Returns:
        An epsilon that is not above the stated one, and may be below it, for bounds are not tight everywhere.

    Raises:
        CertificateError: as for :func:`derived`, or if the set is said to be larger than it is.
    """
    epsilon, delta = _stated(guarantee, name)
    parameters = _parameters(guarantee, name)
    if guarantee["mechanism"] != "shuffle" or set(parameters) != {"num_releases", "local"}:
        raise CertificateError(f"{name} is not the guarantee of a shuffled set; expected num_releases and local.")
    count = integer(parameters["num_releases"], f"{name}.parameters.num_releases", 2, 2**40)
    if count > largest:
        raise CertificateError(f"{name} counts {count} releases that share their public facts; there are {largest}.")
    if canonical(parameters["local"]) != canonical(local):
        raise CertificateError(f"{name}.parameters.local is not the guarantee of the releases; expected it unchanged.")
    for field in ("unit", "relation", "public", "training_data", "fingerprint"):
        if guarantee.get(field) != local.get(field):
            raise CertificateError(f"{name}.{field} is not that of the releases; expected it unchanged.")
    one = derived(local, name)
    if one.delta:
        raise CertificateError(f"{name} is of releases that are not pure; only pure ones count as shuffled.")
    if epsilon >= number(local["epsilon"], f"{name}.parameters.local.epsilon"):
        return Derived(one.epsilon, delta, "that of a single release")
    if one.epsilon > LARGEST_HIDDEN and AGREEMENT * epsilon >= one.epsilon:
        return Derived(epsilon, delta, "that of a single release, to a thousandth")
    if one.epsilon > LARGEST_HIDDEN or not delta:
        raise CertificateError(
            f"{name} cannot be derived; expected a delta above 0, and local epsilons up to {LARGEST_HIDDEN}."
        )
    choice = _choice(local)
    found = set_delta(AGREEMENT * float(epsilon), float(one.epsilon), count, choice)
    if found > float(delta):
        raise CertificateError(f"{name} states delta {float(delta):g}, but {count} shuffled releases give {found:.3g}.")
    # Bounds may be loose; which epsilon would have been enough, to a thousandth of the stated one?
    low, high = Fraction(0), epsilon
    while high - low > epsilon / 1024:
        middle = (low + high) / 2
        enough = set_delta(float(middle), float(one.epsilon), count, choice) <= float(delta)
        low, high = (low, middle) if enough else (middle, high)
    return Derived(high, delta, "the privacy blanket of a shuffled set by Fourier transforms, to a thousandth")


@lru_cache(maxsize=1024)
def _cached(document: bytes, name: str) -> Derived:
    return _leaf(parsed(document, name), name).derived


def _leaf(guarantee: Mapping[str, Any], name: str) -> _Leaf:
    epsilon, delta = _stated(guarantee, name)
    mechanism = guarantee["mechanism"]
    if not isinstance(mechanism, str) or mechanism not in DERIVATIONS:
        raise CertificateError(
            f"{name}.mechanism is not one whose epsilon can be derived; expected {', '.join(DERIVATIONS)}."
        )
    return DERIVATIONS[mechanism](guarantee, _parameters(guarantee, name), epsilon, delta, name)


def _stated(guarantee: Mapping[str, Any], name: str) -> tuple[Fraction, Fraction]:
    if not isinstance(guarantee, Mapping) or not FIELDS - {"fingerprint"} <= set(guarantee) <= FIELDS:
        raise CertificateError(f"{name} is not a guarantee of version 2; release again with this version.")
    if guarantee["unit"] not in UNITS or guarantee["relation"] != "replace-one":
        raise CertificateError(f"{name} has an unknown unit or relation; expected {', '.join(UNITS)} and replace-one.")
    public = guarantee["public"]
    if not isinstance(public, list) or not all(isinstance(fact, str) for fact in public):
        raise CertificateError(f"{name}.public is not a list of names; expected it as the release has written it.")
    if not isinstance(guarantee.get("fingerprint"), str | None):
        raise CertificateError(f"{name}.fingerprint is no text; expected it as the release has written it.")
    epsilon, delta = (number(guarantee[part], f"{name}.{part}") for part in ("epsilon", "delta"))
    if epsilon > 10_000 or delta >= 1:
        raise CertificateError(f"{name} promises nothing; expected an epsilon up to 10000 and a delta below 1.")
    return epsilon, delta


def _parameters(guarantee: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    parameters = guarantee["parameters"]
    if not isinstance(parameters, Mapping):
        raise CertificateError(f"{name}.parameters are not plain data by name; release again with this version.")
    return parameters


def _choices(ratios: list[Fraction], epsilon: Fraction, name: str) -> _Leaf:
    """Return what independent choices promise: the ratios of their probabilities multiply."""
    ratio = math.prod(ratios, start=Fraction(1))
    if not at_most_exp(ratio, epsilon):
        found = f"{float(log_above(ratio)):.9g}"
        raise CertificateError(f"{name} states epsilon {float(epsilon):.9g}, but its integers give {found}.")
    # Rounded up for the reader, and not above what was just proved.
    return _Leaf(Derived(min(log_above(ratio), epsilon), Fraction(0), EXACT), None)


def _of_text(threshold: Any, name: str) -> int:
    """Return an integer of 64 bits that a card states as decimal text."""
    is_text = isinstance(threshold, str) and threshold.isascii() and threshold.isdecimal() and len(threshold) <= 20
    return integer(int(threshold) if is_text else threshold, name, 1, WORDS - 1)


def _ratio(num: Any, size: Any, threshold: Any, name: str) -> Fraction:
    r"""Return the largest ratio of a candidate's probabilities, :math:`T (N - m) / ((2^{64} - T) m)` or its inverse.

    Marked candidates have the probability :math:`T / 2^{64} m` each, the others :math:`(2^{64} - T) / 2^{64} (N - m)`.
    """
    num = integer(num, f"{name}: the number of candidates", 2, 2**31)
    size = integer(size, f"{name}: the subset size", 1, num - 1)
    threshold = _of_text(threshold, f"{name}: the threshold")
    ratio = Fraction(threshold * (num - size), (WORDS - threshold) * size)
    return max(ratio, 1 / ratio)


def _subset(_: Any, parameters: Mapping[str, Any], epsilon: Fraction, __: Fraction, name: str) -> _Leaf:
    sizes, thresholds = (parameters.get(key) for key in ("subset_size", "thresholds"))
    if not (isinstance(sizes, list) and isinstance(thresholds, list)) or not 1 <= len(sizes) == len(thresholds):
        raise CertificateError(f"{name} lacks the thresholds of its choices; release again with this version.")
    if integer(parameters.get("num_blocks"), f"{name}.parameters.num_blocks", 1, MOST_PARTS) != len(sizes):
        raise CertificateError(f"{name}.parameters.num_blocks is not the number of its choices; release again.")
    num = parameters.get("num_candidates")
    ratios = [_ratio(num, *block, name) for block in zip(sizes, thresholds, strict=True)]
    return _choices(ratios, epsilon, name)


def _response(_: Any, parameters: Mapping[str, Any], epsilon: Fraction, __: Fraction, name: str) -> _Leaf:
    return _choices([_ratio(parameters.get("num_classes"), 1, parameters.get("threshold"), name)], epsilon, name)


def _attributes(guarantee: Any, parameters: Mapping[str, Any], epsilon: Fraction, __: Fraction, name: str) -> _Leaf:
    count = integer(parameters.get("num_attributes"), f"{name}.parameters.num_attributes", 1, MOST_PARTS)
    kept = parameters.get("kept")
    if not isinstance(kept, list) or len(set(map(str, kept))) != len(kept) or len(kept) >= count:
        raise CertificateError(f"{name}.parameters.kept is not a list of different attributes, and not of all of them.")
    for attribute in kept:
        integer(attribute, f"{name}.parameters.kept", 0, count - 1)
        if f"attribute {attribute}" not in guarantee["public"]:
            raise CertificateError(f"{name}.public lacks 'attribute {attribute}', which is released as it is.")
    ratio = _ratio(2, 1, parameters.get("threshold"), name)
    return _choices([ratio] * (count - len(kept)), epsilon, name)


def _prior(_: Any, __: Any, ___: Fraction, ____: Fraction, _____: str) -> _Leaf:
    return _Leaf(Derived(Fraction(0), Fraction(0), "nothing of the content is released"), None)


def _lattice(parameters: Mapping[str, Any], norm: int, name: str) -> tuple[Fraction, int]:
    """Return the step of the lattice, the power of two next above C over 2^20, and the bound C in steps."""
    bound = number(parameters.get("clipping_bound"), f"{name}.parameters.clipping_bound")
    if not Fraction(1, 2**100) <= bound <= 2**100 or integer(parameters.get("norm"), f"{name}: the norm", 1, 2) != norm:
        raise CertificateError(f"{name} has another norm than its mechanism, or a clipping bound out of range.")
    bound = Fraction(float(bound))
    step = Fraction(2) ** (bound.numerator.bit_length() - bound.denominator.bit_length() + 1)
    while step >= 2 * bound:
        step /= 2
    step /= 2**LATTICE_BITS
    return step, math.floor(bound / step)


def _binary(plain: Any, name: str) -> Fraction:
    """Return the number that a computer holds for a decimal text: by it, noise is drawn."""
    return Fraction(float(number(plain, name)))


def _laplace(_: Any, parameters: Mapping[str, Any], epsilon: Fraction, __: Fraction, name: str) -> _Leaf:
    _, bound = _lattice(parameters, 1, name)
    if "lattice_scale" not in parameters:
        raise CertificateError(f"{name} lacks the lattice_scale of its noise; release again with this version.")
    scale = _binary(parameters["lattice_scale"], f"{name}.parameters.lattice_scale")
    if scale <= 0 or 2 * bound > scale * epsilon:
        raise CertificateError(
            f"{name} states epsilon {float(epsilon):.9g}, but its scale gives {2 * bound}/{float(scale)}."
        )
    return _Leaf(Derived(2 * bound / scale, Fraction(0), EXACT), None)


def _gaussian(_: Any, parameters: Mapping[str, Any], epsilon: Fraction, delta: Fraction, name: str) -> _Leaf:
    step, bound = _lattice(parameters, 2, name)
    scale = _binary(parameters.get("noise_deviation"), f"{name}.parameters.noise_deviation") / step
    if scale <= 4 or not delta:
        raise CertificateError(f"{name} has noise of no more than 4 steps of its lattice, or no delta.")
    # What discrete noise promises, continuous noise of the variance s^2 - 16 does (PRIVACY_PROMISE.md).
    squared = (scale**2 - 16) / (2 * bound) ** 2
    found = gaussian_epsilon(squared, delta)
    if found > AGREEMENT * float(epsilon):
        raise CertificateError(f"{name} states epsilon {float(epsilon):.9g}, but its noise gives {found:.9g}.")
    return _Leaf(Derived(min(Fraction(found), epsilon), delta, "dp_accounting, to a thousandth"), squared)


def _composition(
    guarantee: Mapping[str, Any], parameters: Mapping[str, Any], epsilon: Fraction, delta: Fraction, name: str
) -> _Leaf:
    parts = list(_flat(guarantee, parameters, name))
    stated = [(number(part["epsilon"], name), number(part["delta"], name)) for part, _ in parts]
    leaves = [leaf for _, leaf in parts]
    how = ", ".join(dict.fromkeys(leaf.derived.how for leaf in leaves))
    total = sum((each for each, _ in stated), Fraction(0)), sum((each for _, each in stated), Fraction(0))
    if total[0] <= epsilon and total[1] <= delta:
        found = sum((leaf.derived.epsilon for leaf in leaves), Fraction(0))
        return _Leaf(Derived(found, total[1], f"sums of {len(leaves)} parts; {how}"), None)
    noises = [leaf.squared_noise for leaf in leaves if leaf.squared_noise is not None]
    if len(noises) == len(leaves) and delta > 0:
        gaussian = composed_gaussian_epsilon(noises, delta)
        if gaussian <= AGREEMENT * float(epsilon):
            whole = min(Fraction(gaussian), epsilon)
            return _Leaf(Derived(whole, delta, f"dp_accounting for {len(leaves)} parts, to a thousandth"), None)
    if (
        not noises
        and len(set(stated)) == 1
        and stated[0][1] == 0
        and stated[0][0] <= LARGEST_LOCAL
        and len(leaves) <= MOST_EQUAL
        and _repeated(stated[0][0], len(leaves), epsilon) <= delta
    ):
        return _Leaf(Derived(epsilon, delta, f"the exact composition of {len(leaves)} equal parts; {how}"), None)
    raise CertificateError(f"{name} states less than its {len(leaves)} parts are found to promise together.")


def _repeated(local: Fraction, count: int, epsilon: Fraction) -> Fraction:
    r"""Return the smallest delta that k pure releases of one epsilon have together, rounded up.

    :math:`\delta = \sum_l \binom{k}{l} (E^{k - l} - e^\epsilon E^l)_+ / (1 + E)^k` with E not below the local
    :math:`e^{\epsilon_0}` (Kairouz, Oh, Viswanath: The composition theorem for differential privacy, ICML 2015).
    """
    # A few digits suffice, and keep its powers short.
    ratio = Fraction(math.ceil(exp_enclosure(local)[1] * 2**80), 2**80)
    whole = exp_enclosure(epsilon)[0]
    terms = (math.comb(count, low) * (ratio ** (count - low) - whole * ratio**low) for low in range(count + 1))
    return sum((term for term in terms if term > 0), Fraction(0)) / (1 + ratio) ** count


def _flat(
    whole: Mapping[str, Any], parameters: Mapping[str, Any], name: str, depth: int = 0
) -> Iterator[tuple[Mapping[str, Any], _Leaf]]:
    parts = parameters.get("parts")
    if not isinstance(parts, list) or not 1 <= len(parts) <= MOST_PARTS or depth > 4:
        raise CertificateError(f"{name}.parameters.parts is not a list of guarantees; release again.")
    known: dict[bytes, _Leaf] = {}
    for index, part in enumerate(parts):
        inner = f"{name}.parameters.parts.{index}"
        document = canonical(part)
        if document not in known:
            _stated(part, inner)
            _check_part(whole, part, name, inner)
            known[document] = _leaf(part, inner)
        if part["mechanism"] == "composition":
            yield from _flat(part, _parameters(part, inner), inner, depth + 1)
        else:
            yield part, known[document]


def _check_part(whole: Mapping[str, Any], part: Mapping[str, Any], name: str, inner: str) -> None:
    """Refuse a composition that says less of public facts or of trainings than its part, or is of another network."""
    derived_training(whole["training_data"], f"{name}.training_data")
    derived_training(part["training_data"], f"{inner}.training_data")
    events, learnt = (
        {canonical(event) for event in guarantee["training_data"]["events"]} for guarantee in (whole, part)
    )
    if not learnt <= events:
        raise CertificateError(f"{name}.training_data lacks a training of {inner}; expected those of all parts.")
    if not set(part["public"]) <= set(whole["public"]):
        raise CertificateError(f"{name}.public lacks a fact that is public in {inner}; expected those of all parts.")
    weights = [guarantee.get("fingerprint") for guarantee in (whole, part)]
    if None not in weights and weights[0] != weights[1]:
        raise CertificateError(f"{name}.fingerprint is not that of {inner}; expected one network's, or none.")


def _choice(guarantee: Mapping[str, Any]) -> Choice | None:
    """Return the integers of a release that is a single choice, which was derived before; None for anything else."""
    get = guarantee["parameters"].get
    if guarantee["mechanism"] == "RandomizedResponse":
        num, size, threshold = get("num_classes"), 1, int(get("threshold"))
    elif guarantee["mechanism"] == "SubsetSelection" and get("num_blocks") == 1:
        num, size, threshold = get("num_candidates"), get("subset_size")[0], int(get("thresholds")[0])
    else:
        return None
    if threshold * (num - size) < (WORDS - threshold) * size:
        # Marked candidates are the less likely ones; then those that are not marked are chosen.
        size, threshold = num - size, WORDS - threshold
    return Choice(num, size, threshold)


Derivation = Callable[[Any, Mapping[str, Any], Fraction, Fraction, str], _Leaf]
DERIVATIONS: dict[str, Derivation] = {
    "SubsetSelection": _subset,
    "RandomizedResponse": _response,
    "AttributeResponse": _attributes,
    "PriorOnly": _prior,
    "LaplaceMechanism": _laplace,
    "GaussianMechanism": _gaussian,
    "composition": _composition,
}
