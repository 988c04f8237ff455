# SPDX-License-Identifier: Apache-2.0
"""What several test files need: errors that are one sentence, and one processor core."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
import torch

torch.set_num_threads(1)


def assert_one_sentence(error: BaseException) -> None:
    """One sentence (a semicolon may join two), ended by a full stop, on one line, and no path in it."""
    (message,) = error.args
    assert re.fullmatch(r"[^\n]+\.", message), message
    assert not re.search(r"\.\s", message), message
    assert not re.search(r"/\w+/\w+|\\\w+\\\w+", message), message


@contextmanager
def _refused(kind: type[BaseException], match: str):
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind
    assert_one_sentence(caught.value)


@pytest.fixture(scope="session")
def refused():
    """Context manager ``refused(kind, match)``: the block must raise exactly this kind, in one sentence."""
    return _refused
