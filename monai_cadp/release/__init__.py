# SPDX-License-Identifier: Apache-2.0
"""Everything that turns originals into releases: of images, volumes and rows, with or without a ledger."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cadp.release.folder_release import release_batches, release_folder
    from monai_cadp.release.privatizer import Privatizer
    from monai_cadp.release.recorded_release import RecordedReleaser
    from monai_cadp.release.released_folder import ReleasedFolder
    from monai_cadp.release.releaser import BaseReleaser, Releaser, as_releaser
    from monai_cadp.release.slice_wise import SliceWiseReleaser
    from monai_cadp.release.table_release import release_rows, release_table

__all__ = [
    "BaseReleaser",
    "Privatizer",
    "RecordedReleaser",
    "ReleasedFolder",
    "Releaser",
    "SliceWiseReleaser",
    "as_releaser",
    "release_batches",
    "release_folder",
    "release_rows",
    "release_table",
]

MODULES = {
    "BaseReleaser": "releaser",
    "Privatizer": "privatizer",
    "RecordedReleaser": "recorded_release",
    "ReleasedFolder": "released_folder",
    "Releaser": "releaser",
    "SliceWiseReleaser": "slice_wise",
    "as_releaser": "releaser",
    "release_batches": "folder_release",
    "release_folder": "folder_release",
    "release_rows": "table_release",
    "release_table": "table_release",
}


def __getattr__(name: str) -> Any:
    # A privatizer needs torch and FrEIA; MONAI, Ignite and what writes files are imported with their first use.
    if name in MODULES:
        return getattr(import_module(f"monai_cadp.release.{MODULES[name]}"), name)
    raise AttributeError(f"module 'monai_cadp.release' has no attribute {name!r}")
