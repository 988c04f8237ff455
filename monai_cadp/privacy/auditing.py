# SPDX-License-Identifier: Apache-2.0
"""What the counts of a distinguisher prove about epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monai_cadp.privacy.calibration import gaussian_delta
from monai_cadp.privacy.training_accounting import (
    LEAST_MULTIPLIER,
    NoisySums,
    training_deltas,
    training_epsilon,
)

__all__ = [
    "counts_needed",
    "epsilon_lower_bound",
    "gaussian_epsilon",
    "gaussian_epsilon_lower_bound",
    "one_run_epsilon_lower_bound",
    "training_epsilon_lower_bound",
]

# Thousands of times the error of the special functions, and far too little to matter beside the noise of any count.
SLACK = 2.0**-30
EPSILON_SLACK = 2.0**-20
# What the accountant may state too much, and epsilons at which a training is compared with its counts.
ACCOUNTANT_SLACK = 0.01
COMPARED = 16
# Times that of the claim, beyond which nothing is looked for.
MOST_NOISE = 64.0


def epsilon_lower_bound(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float = 0.0,
    failure_rate: float = 1e-6,
) -> float:
    r"""Return a number that is above the true epsilon with probability ``failure_rate`` at most.

    A distinguisher is a set S of outputs: an output in S makes it say "x". It is counted how often it does so in n
    independent releases of x (``positives``) and in n' of x' (``negatives``).

    Proof. Let p and q be the probabilities of S for x and for x'. The counts k and l are binomial: with probability
    :math:`1 - \alpha / 2` each (Clopper, Pearson),

    .. math:: p \ge \underline p = I^{-1}_{\alpha / 2}(k, n - k + 1), \qquad
              1 - q \ge 1 - \overline q = I^{-1}_{\alpha / 2}(n' - l, l + 1),

    where :math:`I^{-1}_\alpha(a, b)` is the quantile of the beta distribution, and 0 for a = 0; so both hold with
    probability :math:`1 - \alpha`. If :math:`(\epsilon, \delta)` is promised, S gives :math:`p \le e^\epsilon q +
    \delta`, and its complement, with x and x' exchanged, :math:`1 - q \le e^\epsilon (1 - p) + \delta`. Hence

    .. math:: \epsilon \ge \ln \frac{p - \delta}{q} \ge \ln \frac{\underline p - \delta}{\overline q}, \qquad
              \epsilon \ge \ln \frac{1 - q - \delta}{1 - p} \ge \ln \frac{1 - \overline q - \delta}{1 - \underline p}.

    The larger of them is returned, or 0. S must not depend on the releases that are counted; choose it on others.
    Both rates are rounded down until the computed tail at them is at most :math:`(1 - 2^{-30}) \alpha / 2`, and the
    result by :math:`2^{-20}`: all rounding is in favour of the mechanism.

    Args:
        true_positives: k, releases of x in S.
        positives: n, releases of x.
        false_positives: l, releases of x' in S.
        negatives: n', releases of x'.
        delta: of the promise that is audited, 0 or more and below 1.
        failure_rate: alpha, between 0 and 1.

    Returns:
        The bound on epsilon, 0 or more.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika
        26, 1934. Jagielski, Ullman, Oprea: Auditing differentially private machine learning, NeurIPS 2020.

    Example:
        >>> round(epsilon_lower_bound(7311, 10_000, 2689, 10_000), 3)  # randomized response of epsilon 1
        0.891
    """
    _check_delta(delta)
    hits, rejections = _lowest_rates(true_positives, positives, false_positives, negatives, failure_rate)
    ratios = [(hits - delta) / (1 - rejections), (rejections - delta) / (1 - hits)]
    return max(0.0, math.log(max(*ratios, 1.0)) - EPSILON_SLACK)


def counts_needed(epsilon: float, failure_rate: float = 1e-6) -> int:
    r"""Return how many releases of each input must be counted, so that ``epsilon_lower_bound`` can exceed epsilon.

    A distinguisher that is never wrong in n releases of each input gives the largest bound. With :math:`\tau = \alpha /
    2` both rates are then :math:`\tau^{1/n}`, and the bound is :math:`\ln(\tau^{1/n} / (1 - \tau^{1/n}))`, which is
    :math:`\epsilon` for :math:`n = \ln \tau / \ln(1 / (1 + e^{-\epsilon}))`. We aim a quarter higher: a lower number
    would make an audit that cannot fail.

    Args:
        epsilon: of the promise, 0 or more.
        failure_rate: alpha, between 0 and 1.

    Returns:
        The number of releases.

    Example:
        >>> counts_needed(8.0)
        55541
    """
    return math.ceil(math.log(failure_rate / 2) / -math.log1p(math.exp(-epsilon - 0.25)))


def gaussian_epsilon_lower_bound(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    failure_rate: float = 1e-6,
) -> float:
    r"""Return a number that is above a Gaussian mechanism's epsilon with probability ``failure_rate`` at most.

    Proof. Gaussian noise of deviation :math:`\sigma` for sensitivity 1 makes telling x from x' as hard as telling
    :math:`N(\mu, 1)` from N(0, 1), :math:`\mu \le 1 / \sigma`, whatever is done to the output afterwards: every set S
    has :math:`p \le \Phi(\Phi^{-1}(q) + 1 / \sigma)` (Dong, Roth, Su). So, with the rates of
    ``epsilon_lower_bound`` and its confidence,

    .. math:: \frac{1}{\sigma} \ge \Phi^{-1}(p) - \Phi^{-1}(q)
              \ge \underline \mu = \Phi^{-1}(\underline p) + \Phi^{-1}(1 - \overline q).

    A worst-case pair attains :math:`\mu = 1 / \sigma`, so the epsilon that belongs to delta is that of the curve
    :math:`\delta(\epsilon)` for :math:`\sigma`; it grows with :math:`1 / \sigma`, and ``gaussian_epsilon`` of
    :math:`\underline \mu` is a lower bound of it. The noise of a whole mechanism is known from few releases, where the
    bound without a shape needs some :math:`e^\epsilon` of them.

    Args:
        true_positives: releases of x in S.
        positives: releases of x.
        false_positives: releases of x' in S.
        negatives: releases of x'.
        delta: at which epsilon is asked for, from 1e-100 to 1/4.
        failure_rate: between 0 and 1.

    Returns:
        The bound on epsilon, 0 or more.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Dong, Roth, Su: Gaussian differential privacy, JRSS B 84, 2022. Nasr et al.: Tight auditing of differentially
        private machine learning, USENIX Security 2023.

    Example:
        >>> round(gaussian_epsilon_lower_bound(7976, 10_000, 2024, 10_000, delta=1e-5), 2)  # epsilon is 8
        7.2
    """
    from scipy.special import ndtri

    hits, rejections = _lowest_rates(true_positives, positives, false_positives, negatives, failure_rate)
    mu = float(ndtri(hits) + ndtri(rejections)) - SLACK
    return gaussian_epsilon(max(mu, SLACK), delta)


def training_epsilon_lower_bound(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    parts: Sequence[NoisySums],
    delta: float,
    failure_rate: float = 1e-6,
) -> float:
    r"""Return a number that is above the true epsilon of a training with probability ``failure_rate`` at most.

    The training is taken to be noisy sums as they are claimed, but with an unknown factor of the noise. Proof. Let
    :math:`\delta_f(\epsilon)` be what :func:`~monai_cadp.privacy.training_accounting.training_deltas` proves for f
    times the noise. If the true factor is f or more, every set S has :math:`p \le e^\epsilon q +
    \delta_f(\epsilon)` at every epsilon, and its complement likewise. With the rates of ``epsilon_lower_bound`` and
    its confidence, an f for which
    :math:`\underline p > e^\epsilon \, \overline q + \delta_f(\epsilon)` at some epsilon is contradicted. Delta falls
    in f, so larger ones are too. The epsilon of the smallest f that is known to be contradicted is returned, less a
    hundredth for what the accountant may have rounded up. If the claim is kept, f = 1 is contradicted with a
    probability of ``failure_rate`` at most: this does not rest on the form of a training that breaks it.

    Args:
        true_positives: canaries of the first kind that were taken for it.
        positives: canaries of the first kind.
        false_positives: canaries of the second kind that were taken for the first.
        negatives: canaries of the second kind; two kinds that could replace each other. All are independent.
        parts: what the training claims to be.
        delta: at which epsilon is asked for.
        failure_rate: between 0 and 1.

    Returns:
        The bound on epsilon, 0 or more; at most that of a noise multiplier of 1/4.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Nasr et al.: Tight auditing of differentially private machine learning, USENIX Security 2023. Dong, Roth, Su:
        Gaussian differential privacy, JRSS B 84, 2022.

    Example:
        >>> one = NoisySums(noise_multiplier=1.200458)  # epsilon is 8 at delta 1e-5
        >>> 7.0 < training_epsilon_lower_bound(7976, 10_000, 2024, 10_000, [one], delta=1e-5) < 8
        True
    """
    hits, rejections = _lowest_rates(true_positives, positives, false_positives, negatives, failure_rate)
    # The epsilon at which so many hits mean most is not above the one without any delta.
    largest = max(math.log(max(hits / (1 - rejections), rejections / (1 - hits), 1.0)), 0.1)
    epsilons = [largest * (index + 1) / COMPARED for index in range(COMPARED)]

    def contradicted(factor: float) -> bool:
        deltas = training_deltas([part.scaled(factor) for part in parts], epsilons)
        return any(
            one > math.exp(epsilon) * (1 - other) + delta
            for epsilon, delta in zip(epsilons, deltas, strict=True)
            for one, other in ((hits, rejections), (rejections, hits))
        )

    least = LEAST_MULTIPLIER * (1 + SLACK) / min(part.noise_multiplier for part in parts)
    high = max(1.0, least)
    while not contradicted(high):
        high *= 2
        if high > MOST_NOISE:
            return 0.0
    low = high
    while low > least and contradicted(low):
        high, low = low, max(low / 2, least)
    while high / low > 1.01 and not contradicted(low):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if contradicted(middle) else (middle, high)
    high = low if contradicted(low) else high
    return (1 - ACCOUNTANT_SLACK) * training_epsilon([part.scaled(high) for part in parts], delta)


def one_run_epsilon_lower_bound(
    correct: int, guesses: int, canaries: int, delta: float = 0.0, failure_rate: float = 1e-6
) -> float:
    r"""Return a number that is above the true epsilon of one run with probability ``failure_rate`` at most.

    Every canary was one thing or another by a fair draw of its own, in one and the same run. The attacker guesses
    which, for as many of them as they like, and is right v times out of r.

    Theorem 5.2 of Steinke, Nasr and Jagielski: if the run is :math:`(\epsilon, \delta)` private towards each of m
    canaries, then with W binomial, of r draws with the probability :math:`e^\epsilon / (1 + e^\epsilon)`,

    .. math:: \Pr[\text{v or more are right}] \le \Pr[W \ge v]
              + 2 m \delta \max_{1 \le i \le v} \frac{\Pr[v > W \ge v - i]}{i} .

    It holds whatever the canaries have to do with each other. With a delta nothing is contradicted below a failure rate
    of some :math:`2 m \delta / r`. The right side grows with epsilon, and the largest epsilon
    for which it is at most ``failure_rate`` is contradicted; bisection returns the lower end of its bracket.

    Args:
        correct: v.
        guesses: r, which must not depend on what the canaries are.
        canaries: m.
        delta: of the claim.
        failure_rate: between 0 and 1.

    Returns:
        The bound on epsilon, 0 or more.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Steinke, Nasr, Jagielski: Privacy auditing with one (1) training run, NeurIPS 2023, theorem 5.2.

    Example:
        >>> round(one_run_epsilon_lower_bound(980, 1000, 1000), 2)
        2.95
    """
    from scipy.stats import binom

    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise ValueError(f"{correct} of {guesses} guesses on {canaries} canaries were right; expected fewer and fewer.")
    if not 0 < failure_rate < 1:
        raise ValueError(f"failure_rate is {failure_rate}; expected a number between 0 and 1.")
    _check_delta(delta)
    sizes = np.arange(1, correct + 1)

    def probability(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        below = np.cumsum(binom.pmf(correct - sizes, guesses, rate))
        share = float((below / sizes).max()) if correct else 0.0
        return float(binom.sf(correct - 1, guesses, rate)) + 2 * canaries * delta * share

    low, high = 0.0, 40.0
    if probability(low) > failure_rate * (1 - SLACK):
        return 0.0
    while high - low > 2.0**-20:
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) <= failure_rate * (1 - SLACK) else (low, middle)
    return low


def gaussian_epsilon(mu: float, delta: float) -> float:
    r"""Return the epsilon of continuous Gaussian noise at a delta, rounded down.

    ``gaussian_delta`` falls in epsilon, so bisection finds the root; the lower end of the bracket, where it is above
    delta, is taken. It overstates delta by :math:`2^{-39} (1 + a^2) \Phi(a)` at most (a as defined there), and the
    true curve is convex with the slope :math:`-e^\epsilon \Phi(b)`, so the end is at most :math:`2^{-39} (1 + a^2) \,
    \Phi(a) / (e^\epsilon \Phi(b))` above the root. For a above 0 the last ratio is at most 2, because its numerator
    is 1/2 or more and exceeds its denominator by delta, 1/4 at most. Otherwise it is a ratio of Mills ratios, at -a
    and :math:`\mu - a`, which falls in -a and is at most :math:`\sqrt{\pi / 2} (1 + \mu)` for a = 0. Between the ends
    of the bracket :math:`a^2 \le \max(\mu^2 / 4, 2 \ln(1 / \delta))`. All together is less than :math:`2^{-20}`,
    which is subtracted.

    Args:
        mu: distance of the two means in standard deviations, above 0 and at most 30.
        delta: from 1e-100 to 1/4.

    Returns:
        Epsilon, 0 or more.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Balle, Wang: Improving the Gaussian mechanism for differential privacy, ICML 2018, theorem 8.

    Example:
        >>> round(gaussian_epsilon(1 / 3.730632, 1e-5), 4)
        1.0
    """
    if not 0 < mu <= 30:
        raise ValueError(f"mu is {mu}; expected a number above 0, and 30 at most.")
    if not 1e-100 <= delta <= 0.25:
        raise ValueError(f"delta is {delta}; expected a number from 1e-100 to 1/4 for a Gaussian mechanism.")
    # The privacy loss is normal with mean mu^2 / 2 and deviation mu, and passes the upper end with probability delta.
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    while high - low > 2.0**-24 * (1 + low):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, 1 / mu) > delta else (low, middle)
    return max(0.0, low - EPSILON_SLACK)


def _lowest_rates(
    true_positives: int, positives: int, false_positives: int, negatives: int, failure_rate: float
) -> tuple[float, float]:
    """Return lower bounds of the probabilities of S for x and of its complement for x', right together."""
    for name, value, total in (("positives", true_positives, positives), ("negatives", false_positives, negatives)):
        if not (0 <= value <= total and total >= 1):
            raise ValueError(f"{value} of {total} {name} were counted; expected 0 or more of them, and one or more.")
    if not 0 < failure_rate < 1:
        raise ValueError(f"failure_rate is {failure_rate}; expected a number between 0 and 1.")
    share = failure_rate / 2
    return _lowest_rate(true_positives, positives, share), _lowest_rate(negatives - false_positives, negatives, share)


def _lowest_rate(successes: int, trials: int, tail: float) -> float:
    """Return a rate at which so many successes or more have a probability of ``tail`` at most."""
    from scipy.special import betainc, betaincinv

    if successes == 0:
        return 0.0
    rate, step = float(betaincinv(successes, trials - successes + 1, tail * (1 - 2 * SLACK))), 2.0**-40
    while betainc(successes, trials - successes + 1, rate) > tail * (1 - SLACK):
        rate, step = rate * (1 - step), 2 * step
    return rate


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; expected 0 or more, and below 1.")
