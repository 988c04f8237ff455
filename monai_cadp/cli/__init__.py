# SPDX-License-Identifier: Apache-2.0
"""What ``python -m monai_cadp`` runs: one module for each command, light until it is run."""

from monai_cadp.cli import audit, bundle, certificate, ledger

__all__ = ["audit", "bundle", "certificate", "ledger"]
