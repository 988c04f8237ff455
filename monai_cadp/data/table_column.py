# SPDX-License-Identifier: Apache-2.0
"""What is publicly known about one column of a table, and its values as numbers of a comparable size."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["CategoricalColumn", "Column", "ContinuousColumn", "OrdinalColumn"]

# Released numbers have as many digits as float32 holds.
DIGITS = 6
# Of the uniform noise on a category's 0s and 1s: far too little to change which is the largest.
CATEGORY_STEP = 0.2
# How often the same value outside the bounds is a code rather than a measurement.
REPEATED = 3


@dataclass(frozen=True)
class Column(ABC):
    """One column: a public description that turns values into numbers from 0 to 1, and any numbers into valid values.

    Args:
        name: in the table; public.
    """

    name: str
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"The name of a column is a {type(self.name).__name__} or empty; expected a text.")

    @property
    def width(self) -> int:
        """How many numbers stand for a value."""
        return 1

    @property
    def step(self) -> float:
        """Distance of the numbers of neighbouring values, over which uniform noise spreads them; 0 for none."""
        return 0.0

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> Tensor:
        """Return numbers (n, width), float32, in the middle of the step of every value.

        Args:
            values: numbers or texts, as a file holds them.

        Raises:
            ValueError: if values are missing or do not belong to the column; says how many, and no value.
        """

    @abstractmethod
    def decode(self, encoded: Tensor) -> list[Any]:
        """Return valid values, whatever the numbers (n, width) are."""

    def to_dict(self) -> dict[str, Any]:
        """Return the column as plain data."""
        plain = {"kind": self.kind, **asdict(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Column:
        """Return the column that plain data describe: name, kind, and what the kind needs.

        Raises:
            ValueError: if a part is missing, unknown or not usable.

        Example:
            >>> Column.from_dict({"name": "age", "kind": "continuous", "lowest": 18, "highest": 95})
            ContinuousColumn(name='age', lowest=18.0, highest=95.0, log=False)
        """
        kinds = {kind.kind: kind for kind in (ContinuousColumn, OrdinalColumn, CategoricalColumn)}
        kind = plain.get("kind") if isinstance(plain, Mapping) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"The kind of a column is {kind!r}; expected one of {', '.join(kinds)}.")
        keys = {"kind", *(field.name for field in fields(kinds[kind]))}
        if set(plain) - {"log"} != keys - {"log"} or not set(plain) <= keys:
            raise ValueError(
                f"A {kind} column is described by {', '.join(sorted(map(str, plain)))}; expected "
                f"{', '.join(sorted(keys))}."
            )
        return kinds[kind](**{key: value for key, value in plain.items() if key != "kind"})

    def _present(self, values: Sequence[Any]) -> list[Any]:
        """Return the values with texts trimmed, if none is missing."""
        trimmed = [value.strip() if isinstance(value, str) else value for value in values]
        missing = sum(value is None or value == "" or _is_nan(value) for value in trimmed)
        if missing:
            raise ValueError(
                f"{missing} of {len(trimmed)} rows have no value in the column {self.name!r}; fill it or leave them "
                "out."
            )
        return trimmed


@dataclass(frozen=True)
class ContinuousColumn(Column):
    """Numbers between two public bounds, to which values outside are clipped; encoded as 0 to 1.

    Args:
        name: in the table.
        lowest: becomes 0; above 0 where ``log`` is set.
        highest: becomes 1.
        log: whether ratios count and not differences, as in columns with a long tail.

    Raises:
        ValueError: if the bounds are not finite numbers in this order.

    Example:
        >>> column = ContinuousColumn("crp", lowest=0.1, highest=1000.0, log=True)
        >>> column.encode([10, "0.1", 5000])
        tensor([[0.5000],
                [0.0000],
                [1.0000]])
        >>> column.decode(torch.tensor([[0.5], [7.0]]))
        [10.0, 1000.0]
    """

    lowest: float
    highest: float
    log: bool = False
    kind: ClassVar[str] = "continuous"

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = (self.lowest, self.highest)
        usable = all(_is_number(bound) and math.isfinite(bound) for bound in bounds) and self.lowest < self.highest
        if not usable or (self.log and self.lowest <= 0):
            raise ValueError(
                f"The bounds of the column {self.name!r} are {self.lowest!r} and {self.highest!r}; expected two "
                "numbers in this order, above 0 with log."
            )
        object.__setattr__(self, "lowest", float(self.lowest))
        object.__setattr__(self, "highest", float(self.highest))

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Return numbers (n, 1) from 0 to 1; see :meth:`Column.encode`."""
        numbers = [_number(value) for value in self._present(values)]
        wrong = sum(number is None for number in numbers)
        if wrong:
            raise ValueError(
                f"{wrong} of {len(numbers)} values of the column {self.name!r} are not numbers; correct them, or "
                "describe the column by another kind."
            )
        outside = [number for number in numbers if number is not None and not self.lowest <= number <= self.highest]
        times = Counter(outside)
        codes = sum(_is_made_of_nines(number) or times[number] >= REPEATED for number in outside)
        if codes:
            warnings.warn(
                f"{codes} of {len(numbers)} values of the column {self.name!r} lie outside its bounds and are made of "
                "nines, or are the same again and again, as codes for a missing value are; they are clipped to the "
                "bounds like all others, unless these rows are left out.",
                stacklevel=2,
            )
        x = torch.tensor(numbers, dtype=torch.float64).clamp(self.lowest, self.highest)
        low, high = self._ends()
        return (((x.log() if self.log else x) - low) / (high - low)).float()[:, None]

    def decode(self, encoded: Tensor) -> list[float]:
        """Return numbers within the bounds; see :meth:`Column.decode`."""
        low, high = self._ends()
        x = torch.nan_to_num(encoded[:, 0].double(), nan=0.0).clamp(0, 1) * (high - low) + low
        rounded = (float(f"{value:.{DIGITS}g}") for value in (x.exp() if self.log else x).tolist())
        return [min(max(value, self.lowest), self.highest) for value in rounded]

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.lowest), math.log(self.highest)) if self.log else (self.lowest, self.highest)


@dataclass(frozen=True)
class _Listed(Column):
    """A column whose values are listed."""

    values: Sequence[str | int | float]

    def __post_init__(self) -> None:
        super().__post_init__()
        values = self.values
        if (
            isinstance(values, str)
            or not isinstance(values, Sequence)
            or len(values) < 2
            or not all(_is_number(value) or (isinstance(value, str) and value.strip()) for value in values)
            or len({self._key(value) for value in values}) < len(values)
        ):
            raise ValueError(
                f"The values of the column {self.name!r} are not a list of at least two different texts or numbers; "
                "put words such as yes and no in quotation marks."
            )
        object.__setattr__(self, "values", tuple(values))

    def indices(self, rows: Sequence[Any]) -> Tensor:
        """Return which of the listed values every row has (n,), int64; errors as :meth:`Column.encode`."""
        positions = {self._key(value): index for index, value in enumerate(self.values)}
        found = [positions.get(self._key(value)) for value in self._present(rows)]
        unknown = sum(index is None for index in found)
        if unknown:
            raise ValueError(
                f"{unknown} of {len(found)} rows have a value in the column {self.name!r} that is not one of the "
                f"{len(self.values)} listed ones; list it or correct them."
            )
        return torch.tensor(found, dtype=torch.int64)

    def at(self, indices: Tensor) -> list[Any]:
        """Return the listed values at indices (n,)."""
        return [self.values[index] for index in indices.tolist()]

    def _key(self, value: Any) -> Any:
        # A file holds the text "1.0" where a list holds the number 1.
        if all(_is_number(listed) for listed in self.values):
            return _number(value)
        return str(value).strip()


@dataclass(frozen=True)
class OrdinalColumn(_Listed):
    """Values in an order; encoded as (index + 1/2) / number of values, decoded by rounding down to an index.

    Args:
        name: in the table.
        values: at least two different texts or numbers, in their order.

    Raises:
        ValueError: if there are fewer, or one stands twice.

    Example:
        >>> column = OrdinalColumn("grade", values=[1, 2, 3, 4])
        >>> column.encode(["3"])
        tensor([[0.6250]])
        >>> column.decode(torch.tensor([[0.74], [0.76], [9.0]]))
        [3, 4, 4]
    """

    kind: ClassVar[str] = "ordinal"

    @property
    def step(self) -> float:
        """The share of one value."""
        return 1 / len(self.values)

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Return numbers (n, 1) between 0 and 1; see :meth:`Column.encode`."""
        return (self.indices(values)[:, None].float() + 0.5) * self.step

    def decode(self, encoded: Tensor) -> list[Any]:
        """Return listed values; see :meth:`Column.decode`."""
        positions = torch.nan_to_num(encoded[:, 0].double(), nan=0.0).clamp(0, 1) * len(self.values)
        return self.at(positions.floor().long().clamp(max=len(self.values) - 1))


@dataclass(frozen=True)
class CategoricalColumn(_Listed):
    """Values without an order; encoded as 1 at the place of the value and 0 at all others, decoded by the largest.

    Args:
        name: in the table.
        values: at least two different texts or numbers.

    Raises:
        ValueError: if there are fewer, or one stands twice.

    Example:
        >>> column = CategoricalColumn("side", values=["left", "right"])
        >>> column.encode(["right"])
        tensor([[0., 1.]])
        >>> column.decode(torch.tensor([[0.4, 0.3]]))
        ['left']
    """

    kind: ClassVar[str] = "categorical"

    @property
    def width(self) -> int:
        """One number for each listed value."""
        return len(self.values)

    @property
    def step(self) -> float:
        """A little, so that 0s and 1s become a density."""
        return CATEGORY_STEP

    def encode(self, values: Sequence[Any]) -> Tensor:
        """Return numbers (n, width), 0 and 1; see :meth:`Column.encode`."""
        return torch.nn.functional.one_hot(self.indices(values), self.width).float()

    def decode(self, encoded: Tensor) -> list[Any]:
        """Return listed values; see :meth:`Column.decode`."""
        return self.at(torch.nan_to_num(encoded, nan=0.0).argmax(1))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(value: Any) -> bool:
    number = _number(value)
    return number is not None and math.isnan(number)


def _is_made_of_nines(number: float) -> bool:
    return math.isfinite(number) and number == int(number) and {*str(abs(int(number)))} == {"9"}


def _number(value: Any) -> float | None:
    if isinstance(value, str) and "_" in value:
        return None  # digits of a program, which no table has
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
