# SPDX-License-Identifier: Apache-2.0
"""The Ignite engine that trains an invertible network with differential privacy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any, cast

import ignite.distributed as idist
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from monai_cadp.engines.flow_batch import prepare_flow_batch
from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.engines.likelihood_gradients import likelihood_gradients
from monai_cadp.engines.private_moments import PrivateMoments
from monai_cadp.networks import ConditionalINN, InvertibleNetwork
from monai_cadp.networks.moments import Batches
from monai_cadp.privacy import needs_subjects
from monai_cadp.privacy.checks import checked_positive
from monai_cadp.privacy.noisy_sum import SumLattice, poisson_batch
from monai_cadp.privacy.randomness import SecretDraws
from monai_cadp.privacy.training_accounting import NoisySums, noise_scale_for, training_epsilon
from monai_cadp.privacy.training_data import DP, UNPROTECTED, TrainingData

__all__ = ["PrivateFlowTrainer"]

# Numbers, over all images, that gradients of single images may take in memory together.
GRADIENT_NUMBERS = 2**27
READING_BATCH = 256
KEPT = ("noise_multiplier", "sampling_rate", "moment_multiplier")


class PrivateFlowTrainer(FlowTrainer):
    r"""Train a network so that its weights, and everything made with them, are differentially private.

    Proof. Two data sets of the same number n of people are compared, who are the same but for one, whose images,
    conditions, or both are others. Every image gets input noise from a cryptographic stream of its own, so that whether
    somebody is in a batch changes nothing that is added of others. First come the two noisy moments of
    :class:`PrivateMoments`, then a number of steps. A step looks at the data once: every person enters the batch
    independently with probability ``batch_size`` / n, the mean gradient of their images is clipped to the norm C, and
    the sum gets Gaussian noise of deviation s C.
    :func:`~monai_cadp.privacy.training_accounting.training_epsilon` proves what all of this promises together, and the
    noise is as much as makes it (epsilon, delta) for the whole training. Dividing by ``batch_size``, which is public
    unlike the size of a batch, AdamW and averaging are post-processing. Nothing else of the data is looked at: no loss
    is logged, no gradient is watched, no image of the batch is counted. n, the number of images of each person, the
    steps and everything that the caller chooses are public, and must be chosen without looking at these images; so
    must the images of an evaluator be.

    The guarantee is that of the whole training, also when it ends early: when to stop may depend on what came out. What
    an image adds must depend on nothing but itself: no random transform may share random draws among images, and
    classes are those of the network.

    A training that was killed goes on from the end of its last epoch, with fresh random draws. Every epoch is saved
    before any handler of the same call of :meth:`attach_all` sees it, so the steps that were lost never left the
    process; only those that led to the weights count, and the epsilon is that of an uninterrupted run. A handler that
    lets weights out within an epoch, or that was attached before the checkpoint in another way, breaks this.

    Clipped gradients, their sum and the noise are integers (:class:`~monai_cadp.privacy.noisy_sum.SumLattice`), so
    that no rounding is left out of the proof but one: the gradients of other people, which floating-point arithmetic
    may round differently where the batch has one person more. Not covered either is the time that training takes.

    Args:
        network: new, or trained on public images or with differential privacy, whose budgets then add up; trained in
            place.
        dataset: items are dictionaries with ``image`` (C, \*spatial) and ``label``.
        epsilon: budget of the whole training.
        delta: from 1e-10; far below 1 / n.
        max_epochs: passes over the data, on average.
        batch_size: expected number of people in a batch.
        people: of every item of the dataset, whose it is, as integers from 0; None where every item is somebody else's.
        moments: how linear parts are fitted, of a new network; None for a network whose parts are those of public data.
        moment_multiplier: noise of the moments beside that of the steps; larger spends less on them.
        largest_gradient: C, in bits per dimension.
        unit: what one person of ``people`` is: image, volume, row or patient; the last needs ``people``.
        add_or_remove_one: let (epsilon, delta) be that of one person more or less, as published results do; the
            guarantee states that of a replacement, which is larger.
        generator: draws everything instead. For tests only: its numbers can be foretold, so the training has no
            guarantee, and the network counts as trained on unprotected data.
        options: further arguments of :class:`FlowTrainer`; not ``max_minutes``, for time depends on who is in a batch,
            nor ``reversible``, nor a ``device`` that is no CPU.

    Raises:
        ValueError: if a number is out of its range, the network has learned from unprotected data, linear
            parts would be fitted twice or not at all, there are several processes, or an option cannot be had.

    References:
        Abadi et al.: Deep learning with differential privacy, CCS 2016.
    """

    declarable = (DP,)
    kind = "private flow"

    def __init__(
        self,
        network: ConditionalINN,
        dataset: Dataset,
        *,
        epsilon: float,
        delta: float,
        max_epochs: int,
        batch_size: int,
        people: Sequence[int] | None = None,
        moments: PrivateMoments | None = None,
        moment_multiplier: float = 1.0,
        largest_gradient: float = 0.1,
        unit: str = "image",
        add_or_remove_one: bool = False,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        if idist.get_world_size() > 1:
            raise ValueError("Private training came with several processes, of which each would add noise; use one.")
        for name, usual in (("max_minutes", None), ("reversible", False), ("device", "cpu")):
            if str(options.get(name, usual)) != str(usual):
                raise ValueError(f"{name} is {options[name]}; private training cannot have it, leave it out.")
        _check_network(network, moments)
        assert isinstance(dataset, Sized)
        if needs_subjects(unit) and people is None:
            raise ValueError("The unit is a patient, but people were not given; give those of people_of.")
        self.people = _checked_people(people, len(dataset))
        count = int(self.people.max()) + 1
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size is {batch_size} for {count} people; expected 1 or more, and at most all.")
        steps = -(-count // batch_size)
        rate = batch_size / count
        planned = [NoisySums(1.0, rate, max_epochs * steps)]
        if moments is not None:
            planned += moments.sums(checked_positive("moment_multiplier", moment_multiplier))
        scale = noise_scale_for(epsilon, delta, planned, add_or_remove_one=add_or_remove_one)
        self.moments, self.delta, self.unit, self.batch_size = moments, delta, unit, batch_size
        self.generator, self.dataset, self.planned_steps = generator, dataset, max_epochs * steps
        self.epoch_steps = steps
        batches = self._sampler(rate, steps)
        loader: DataLoader = DataLoader(_WithPeople(dataset), batch_sampler=batches, collate_fn=_collate)  # type: ignore[arg-type]
        if "training_data" in options:
            raise ValueError("training_data was given; private training protects its data itself, leave it out.")
        options = {"largest_gradient": largest_gradient, "training_data": DP, **options}
        handlers = options.pop("train_handlers", ())
        for refiner in (network.refiner, network.mask_refiner) if isinstance(network, ConditionalINN) else ():
            if refiner is not None:
                # It has no likelihood, and would get nothing but noise.
                refiner.requires_grad_(False)
        super().__init__(network, loader, max_epochs=max_epochs, **options)
        if generator is not None:
            self.protection = UNPROTECTED
        self.state.noise_multiplier, self.state.sampling_rate = scale, rate
        self.state.moment_multiplier = scale * moment_multiplier if moments is not None else 0.0
        self.state_dict_user_keys.extend(KEPT)
        # A checkpoint among them looks at what was set just now.
        self.attach_all(handlers)

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen for this training, as plain data; all of it is public."""
        chosen = {"delta": self.delta, "unit": self.unit, "batch_size": self.batch_size}
        return super().parameters() | chosen | {name: getattr(self.state, name) for name in KEPT}

    def attach_all(self, handlers: Sequence[Any]) -> FlowTrainer:
        """Attach handlers that were made after the trainer, and return the trainer.

        The checkpoint comes first, so that nothing of an epoch is seen that might be drawn again; what handlers learn
        from the end of an epoch is in the file of the next one. Handlers of MONAI log epochs only: a step has no loss
        that they could log, and when it was made, which they record with it, tells how many people are in its batch.
        """
        for handler in handlers:
            if hasattr(handler, "iteration_log"):
                handler.iteration_log = False
        return super().attach_all(sorted(handlers, key=lambda handler: not getattr(handler, "comes_first", False)))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with a training of the same noise.

        Raises:
            ValueError: if the other training had other noise or batches, so that the promise would be another one.
        """
        if any(state_dict.get(name) != getattr(self.state, name) for name in KEPT):
            raise ValueError(
                "The training checkpoint was made with other noise or batches; give the budget, epochs, batch size and "
                "data with which it began, or remove it to start anew."
            )
        super().load_state_dict(state_dict)

    @property
    def spent(self) -> list[NoisySums]:
        """What the whole training looks at, for the accountant."""
        # More than planned, where somebody has raised max_epochs since.
        steps = max(self.planned_steps, self.state.iteration, self.state.max_epochs * self.epoch_steps)
        parts = [NoisySums(self.state.noise_multiplier, self.state.sampling_rate, steps)]
        if self.moments is not None:
            parts = self.moments.sums(self.state.moment_multiplier) + parts
        return parts

    @property
    def guarantee(self) -> dict[str, Any] | None:
        """What the whole training promises, for the replacement of one person; None with a generator."""
        if self.generator is not None:
            return None
        spent = tuple(self.spent)
        replaced, other = (_epsilon(spent, self.delta, one) for one in (False, True))
        return {
            "epsilon": replaced,
            "delta": self.delta,
            "unit": self.unit,
            "relation": "replace-one",
            "add_or_remove_one_epsilon": other,
            "sums": [list(part) for part in spent],
        }

    def run(self) -> None:  # type: ignore[override]
        """Train; of a network that has learned from unprotected data, refuse to."""
        if self.state.iteration == 0:
            _check_network(cast(ConditionalINN, self.network), self.moments)
        super().run()

    def finish(self, network: InvertibleNetwork, progress: bool = False, held_out: Batches | None = None) -> None:
        """Do nothing: to whiten or to calibrate would look at images once more, outside of the budget."""

    def _noisy(self, x: Tensor) -> Tensor:
        """Add input noise that nobody can foretell: were it known, who is in a batch would show in that of others."""
        return self.noise(x, generator=SecretDraws() if self.generator is None else self.generator)

    def _fit_moments(self) -> None:
        if self.moments is None:
            return
        weights = 1 / torch.bincount(self.people)[self.people].double()
        loader: DataLoader = DataLoader(self.dataset, READING_BATCH)
        batches = (prepare_flow_batch(batch) for batch in loader)
        noisy = ((self._noisy(x), condition) for x, condition in batches)
        self.moments(
            cast(ConditionalINN, self.network),
            noisy,
            weights,
            self.state.moment_multiplier,
            self.generator,
            training_data=self.training_event(),
        )

    def _backward(self, batchdata: Mapping[str, Any]) -> dict[str, float]:
        # Dropout draws from a public seed, in the order of the batch: what it hides of one image would depend on who
        # else is there.
        self.network.eval()
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        lattice = self._lattice()
        total = [torch.zeros(p.shape, dtype=torch.float64) for p in parameters]
        if batchdata:
            x, condition = prepare_flow_batch(batchdata, self.state.device)
            x = self._noisy(x)
            for part in self._chunks(batchdata["person"], sum(p.numel() for p in parameters)):
                persons, person = self._whose(batchdata["person"][part])
                chosen = None if condition is None else condition[part]
                rows = self._gradients(x[part], chosen, persons, person)
                for sum_, new in zip(total, lattice.clipped_sum(rows), strict=True):
                    sum_ += new
        for parameter, noisy in zip(parameters, lattice.noisy(total, self.generator), strict=True):
            parameter.grad = (noisy / self.batch_size).to(parameter)
        return {}

    # What an audit replaces: by contributions of its own, and by faults that it must find.

    def _lattice(self) -> SumLattice:
        """Return what clips, adds up and adds noise."""
        return SumLattice(self.largest_gradient, self.state.noise_multiplier)

    def _whose(self, person: Tensor) -> tuple[Tensor, Tensor]:
        """Return who contributes to a sum, and which of them every image belongs to."""
        return cast(tuple[Tensor, Tensor], person.unique(return_inverse=True))

    def _gradients(self, x: Tensor, condition: Tensor | None, persons: Tensor, person: Tensor) -> list[Tensor]:
        """Return the contribution of each of these persons to every parameter."""
        return likelihood_gradients(self.network, x, condition, person, len(persons))

    def _sampler(self, rate: float, steps: int) -> Iterable[list[tuple[int, int]]]:
        """Return the batches of an epoch, as places of images and whose they are."""
        return _PoissonBatches(self.people, rate, steps, self.generator)

    def _chunks(self, person: Tensor, size: int) -> Iterator[slice]:
        """Yield places of images, each person's together, as many as memory holds gradients of."""
        largest = max(1, GRADIENT_NUMBERS // size)
        # Batches come person by person.
        start = end = 0
        for count in person.unique_consecutive(return_counts=True)[1].tolist():
            if end > start and end + count - start > largest:
                yield slice(start, end)
                start = end
            end += count
        yield slice(start, end)


class _PoissonBatches:
    """The places of the images of everybody in a batch, which each person enters by a random draw of their own."""

    def __init__(self, people: Tensor, rate: float, steps: int, generator: torch.Generator | None) -> None:
        self.rate, self.steps, self.generator = rate, steps, generator
        order = people.argsort(stable=True)
        self.places = order.split(torch.bincount(people).tolist())

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for _ in range(self.steps):
            chosen = poisson_batch(len(self.places), self.rate, self.generator).tolist()
            yield [(place, person) for person in chosen for place in self.places[person].tolist()]


class _WithPeople(Dataset):
    """Items by (place, person), with the person among them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        place, person = index
        item = self.dataset[place]
        return {**{key: item[key] for key in ("image", "label") if key in item}, "person": person}


@lru_cache(maxsize=64)
def _epsilon(spent: tuple[NoisySums, ...], delta: float, add_or_remove_one: bool) -> float:
    return training_epsilon(spent, delta, add_or_remove_one=add_or_remove_one)


def _collate(items: list[Any]) -> dict[str, Any]:
    return default_collate(items) if items else {}


def _check_network(network: ConditionalINN, moments: PrivateMoments | None) -> None:
    if TrainingData.of(network).protection == UNPROTECTED:
        raise ValueError(
            "The network has learned from unprotected data, which nothing can undo; give a new one, or one that was "
            "trained on public images or with differential privacy."
        )
    if network.is_new != (moments is not None):
        raise ValueError(
            "A new network needs moments, to fit its linear parts privately; one that was trained on public images "
            "keeps its own, with moments=None."
        )


def _checked_people(people: Sequence[int] | None, count: int) -> Tensor:
    if people is None:
        return torch.arange(count)
    found = torch.as_tensor(people)
    if found.shape != (count,) or found.is_floating_point() or count == 0:
        raise ValueError(f"people has shape {tuple(found.shape)}; expected one integer for each of {count} items.")
    if int(found.min()) < 0 or not bool(torch.bincount(found.long()).all()):
        raise ValueError("people has a negative number or a gap; expected integers from 0 on, each at least once.")
    return found.long()
