# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms."""

from monai_cadp.transforms.privatize import Privatize, PrivatizeD, Privatized, PrivatizeDict

__all__ = ["Privatize", "PrivatizeD", "PrivatizeDict", "Privatized"]
