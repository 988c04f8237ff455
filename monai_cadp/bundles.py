# SPDX-License-Identifier: Apache-2.0
"""Where the bundles and the studies lie that come with the package, and what belongs to a bundle."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PARTS", "bundle_files", "shipped_bundles", "shipped_folder"]

PACKAGE = Path(__file__).parent
# What a bundle consists of. What it has made lies beside: runs, releases, evaluations.
PARTS = ("LICENSE", "configs", "docs", "models", "samples")


def shipped_folder(name: str) -> Path:
    """Return the folder of the bundles, or of the studies: inside an installed package, beside it in the repository.

    Args:
        name: ``"bundles"`` or ``"configs"``.

    Raises:
        ValueError: if there is no such folder.

    Example:
        >>> (shipped_folder("configs") / "quickstart.yaml").is_file()
        True
    """
    for folder in (PACKAGE / f"_{name}", PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ValueError(f"This installation came without {name}; install the package from its wheel or its repository.")


def shipped_bundles() -> dict[str, Path]:
    """Return the folder of every bundle by its name.

    Example:
        >>> [*shipped_bundles()]
        ['cadp_2d', 'cadp_3d', 'cadp_brain_mr', 'cadp_chest_xray', 'cadp_tabular']
    """
    found = shipped_folder("bundles").glob("*/configs/metadata.json")
    return {path.parts[-3]: path.parents[1] for path in sorted(found)}


def bundle_files(folder: Path) -> list[Path]:
    """Return the files that belong to a bundle, and not what its runs have left in its folder.

    Args:
        folder: of the bundle.

    Returns:
        The files, relative to the folder.
    """
    found = [path for part in PARTS for path in (folder / part, *(folder / part).rglob("*")) if path.is_file()]
    return sorted(path.relative_to(folder) for path in found)
