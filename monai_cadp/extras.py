# SPDX-License-Identifier: Apache-2.0
"""Libraries that only some tasks need: extras of the package, such as ``monai_cadp[dicom]``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MissingExtraError", "extra"]


class MissingExtraError(ImportError):
    """A library of an extra is not installed; the message has the command that installs it."""


@contextmanager
def extra(name: str, task: str) -> Iterator[None]:
    """Import libraries of an extra in the block, and say in one sentence what is missing where they are not installed.

    Args:
        name: of the extra, as in ``setup.py``.
        task: what needs it, the beginning of the sentence.

    Raises:
        MissingExtraError: if a library is not installed.

    Example:
        >>> with extra("dicom", "DICOM"):
        ...     import no_such_library
        Traceback (most recent call last):
        monai_cadp.extras.MissingExtraError: DICOM needs no_such_library; install it by pip install 'monai_cadp[dicom]'.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise MissingExtraError(f"{task} needs {library}; install it by pip install 'monai_cadp[{name}]'.") from None
