# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_cadp bundle``: list the bundles that come with the package, and copy one to edit and run it."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
from pathlib import Path
from typing import Any

from monai_cadp import __version__
from monai_cadp.bundles import bundle_files, shipped_bundles, shipped_folder

__all__ = ["add_parser"]

# Beside the bundles; they look for what they share in a folder of this name.
STUDIES = "configs"


def add_parser(subparsers: Any) -> None:
    """Add the command and its own sub-commands to a parser's."""
    parser = subparsers.add_parser("bundle", help="list the bundles that come with the package, or copy one")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = "list the bundles that come with the package: name, version, and what each is for"
    commands.add_parser("list", help=text, description=text).set_defaults(run=_list)
    text = "copy a bundle into a new folder, to edit it and to run it there"
    copy = commands.add_parser("copy", help=text, description=text)
    copy.add_argument("name", help=f"of the bundle; {STUDIES} for the studies, which run beside a folder of that name")
    copy.add_argument("target", type=Path, help="the new folder, which must not exist yet")
    copy.set_defaults(run=_copy)


def _list(options: argparse.Namespace) -> int:
    rows = []
    for name, folder in shipped_bundles().items():
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        rows.append((name, metadata["version"], metadata["task"]))
    rows.append((STUDIES, __version__, f"Studies and quick starts, for a folder named {STUDIES}"))
    width = max(len(name) for name, _, _ in rows)
    for name, version, task in rows:
        print(f"{name:{width}}  {version}  {task}")
    return 0


def _copy(options: argparse.Namespace) -> int:
    bundles, target = shipped_bundles(), options.target
    if options.name == STUDIES:
        source = shipped_folder(STUDIES)
        files = [path.relative_to(source) for path in source.rglob("*.yaml")]
    elif options.name in bundles:
        source = bundles[options.name]
        files = bundle_files(source)
    else:
        (nearest,) = difflib.get_close_matches(options.name, [*bundles, STUDIES], n=1, cutoff=0.0)
        raise ValueError(f"There is no bundle {options.name!r}; the nearest one is {nearest!r}, 'bundle list' has all.")
    made = copied = False
    try:
        target.mkdir(parents=True)
        made = True
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            # Not with its permissions: those of an installed package may forbid to edit it.
            shutil.copyfile(source / file, target / file)
        copied = True
    except FileExistsError:
        raise ValueError("The target exists already; give a folder that does not.") from None
    except OSError:
        raise ValueError("The target could not be written; check its folder and its permissions.") from None
    finally:
        if made and not copied:
            shutil.rmtree(target, ignore_errors=True)
    print(f"copied to {target}: {len(files)} files")
    return 0
