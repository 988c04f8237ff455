# SPDX-License-Identifier: Apache-2.0
"""The package finds every one of its names at the first use, and no others."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest

from monai_cadp import release

MODULES = [import_module(f"monai_cadp.release.{found.name}") for found in iter_modules(release.__path__)]
DEFINED = {name: getattr(module, name) for module in MODULES for name in module.__all__}


@pytest.mark.parametrize("name", release.__all__)
def test_every_public_name_is_what_its_module_defines(name):
    assert getattr(release, name) is DEFINED[name]


def test_a_name_that_the_package_has_not_is_refused():
    with pytest.raises(AttributeError, match=r"^module 'monai_cadp\.release' has no attribute 'no_such_name'$"):
        release.no_such_name  # noqa: B018
