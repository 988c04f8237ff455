# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_cadp dicomweb``: originals from a hospital's archive, releases to another one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_cadp.cli.configuration import overrides_of, read_configuration
from monai_cadp.extras import extra

if TYPE_CHECKING:
    from monai_cadp.data.dicomweb_fetch import Fetched
    from monai_cadp.data.dicomweb_server import DicomWebServer

__all__ = ["add_parser"]

# In the folder of a release from an archive to an archive.
ORIGINALS, RELEASED = "originals", "released"
# What it was fetched by, and what it was released by: another command would get what this one has made.
QUERIED, STATED = "query.json", "options.json"
QUERY = (
    "address of studies or series, such as https://host/dicom-web/series?Modality=MR; - to read it from standard input"
)
ADDRESS = "of the DICOMweb service, such as https://host/dicom-web"
TOKEN = "file with a bearer token, which its owner alone may read"
AUTHORITIES = "PEM file of the authorities to trust in place of the usual ones"


def add_parser(subparsers: Any) -> None:
    """Add the command and its own sub-commands to a parser's."""
    parser = subparsers.add_parser("dicomweb", help="fetch originals from a DICOMweb server, store releases on another")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}. Start it again if it was stopped: it goes on.",
            allow_abbrev=False,
        )
        command.add_argument("--retries", type=int, default=5, help="of a request that fails by itself; default: 5")
        command.set_defaults(run=run)
        return command

    fetch = add("fetch", _fetch, "fetch the series of a query, each whole, into a folder that its owner alone may read")
    fetch.add_argument("query", metavar="QUERY", help=QUERY)
    fetch.add_argument("folder", type=Path, metavar="FOLDER", help="new, or of an earlier fetch")
    store = add("store", _store, "store the DICOM files of a released folder, and nothing else")
    store.add_argument("folder", type=Path, metavar="FOLDER", help="of a release with output_format dicom")
    store.add_argument("address", metavar="ADDRESS", help=ADDRESS)
    for command in (fetch, store):
        command.add_argument("--token_file", type=Path, help=TOKEN)
        command.add_argument("--ca_file", type=Path, help=AUTHORITIES)
    release = add(
        "release", _release, "fetch, release by a bundle, and store; further options --KEY VALUE are the bundle's"
    )
    release.add_argument("--config_file", nargs="+", required=True, help="inference.yaml of a bundle")
    release.add_argument("--input", required=True, metavar="QUERY", help=QUERY)
    release.add_argument("--output", required=True, metavar="ADDRESS", help=ADDRESS)
    release.add_argument(
        "--work_dir", type=Path, required=True, help="for originals and the release, new for every query"
    )
    for end in ("input", "output"):
        release.add_argument(f"--{end}_token_file", type=Path, help=TOKEN)
        release.add_argument(f"--{end}_ca_file", type=Path, help=AUTHORITIES)
    release.set_defaults(overrides=[])


def _fetch(options: argparse.Namespace) -> int:
    _fetched(_read(options.query), options.folder, options.token_file, options.ca_file, options.retries)
    return 0


def _store(options: argparse.Namespace) -> int:
    _stored(_server(options.address, options.token_file, options.ca_file, options.retries), options.folder)
    return 0


def _release(options: argparse.Namespace) -> int:
    """Fetch, release and store, each of which passes over what an earlier call has done."""
    from monai.bundle import run

    overrides = overrides_of(options.overrides)
    configuration = read_configuration(options.config_file, overrides)
    if "output_format" not in configuration:
        raise ValueError("The configuration has no output_format, and releases no DICOM; give that of another bundle.")
    # Before anything is fetched, and anything is spent.
    server = _server(options.output, options.output_token_file, options.output_ca_file, options.retries)
    from monai_cadp.data.dicomweb_fetch import DATALIST, SUBJECTS
    from monai_cadp.data.dicomweb_server import DicomWebQuery

    query = _read(options.input)
    DicomWebQuery.parse(query)
    originals, released = options.work_dir / ORIGINALS, options.work_dir / RELEASED
    queried, stated = options.work_dir / QUERIED, options.work_dir / STATED
    if not _is_for(queried, query, is_open=not queried.exists()):
        raise ValueError("The work_dir is for another query; give a new one.")
    # Until there is a release, options may be mended.
    if not _is_for(stated, [options.config_file, overrides], is_open=not released.exists()):
        raise ValueError("The work_dir holds a release with other options; give a new one.")
    fetched = _fetched(query, originals, options.input_token_file, options.input_ca_file, options.retries)
    # Of volumes a series is one; of images in two dimensions every file is.
    is_of_volumes = "subjects" in configuration
    expected = fetched.num_series if is_of_volumes else fetched.num_images
    if not released.exists():
        if is_of_volumes and configuration.get("ledger") is not None:
            overrides = {"subjects": str(originals / SUBJECTS)} | overrides
        source = originals if is_of_volumes else originals / DATALIST
        ends = {"input": str(source), "output": str(released), "output_format": "dicom"}
        run(config_file=options.config_file, **(overrides | ends))
    if (count := _count(released)) != expected:
        raise ValueError(
            f"The work_dir holds a release of {count} images, and {expected} originals; give a new work_dir, for there "
            "are more by now."
        )
    _stored(server, released)
    return 0


def _read(query: str) -> str:
    return sys.stdin.readline().strip() if query == "-" else query


def _is_for(path: Path, content: Any, is_open: bool) -> bool:
    """Write what a folder is for, where that is open, and tell whether it is this."""
    from monai_cadp.data.silence import read_silently
    from monai_cadp.privacy.private_files import write_private

    text = json.dumps(content, sort_keys=True, default=str) + "\n"

    def kept() -> str:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_open:
            write_private(path, text)
        return path.read_text(encoding="utf-8")

    return read_silently(kept, "The work_dir could not be written or read; check its space and permissions.") == text


def _count(released: Path) -> int:
    """Return of how many images a folder is the release, those included that could not be read."""
    from monai_cadp.data.silence import read_silently

    def counted() -> int:
        summary = json.loads((released / "summary.json").read_text(encoding="utf-8"))
        return summary["count"] + summary.get("left_out", 0)

    return read_silently(counted, "The release in the work_dir is not as it was written; give a new work_dir.")


def _server(address: str, token_file: Path | None, ca_file: Path | None, retries: int) -> DicomWebServer:
    with extra("dicom", "DICOMweb"):
        from monai_cadp.data.dicomweb_server import DicomWebServer
    return DicomWebServer(address, token_file, ca_file, retries)


def _fetched(query: str, folder: Path, token_file: Path | None, ca_file: Path | None, retries: int) -> Fetched:
    with extra("dicom", "DICOMweb"):
        from monai_cadp.data.dicomweb_fetch import fetch_series
        from monai_cadp.data.dicomweb_server import DicomWebQuery
    parsed = DicomWebQuery.parse(query)
    fetched = fetch_series(_server(parsed.address, token_file, ca_file, retries), parsed, folder)
    print(f"{fetched.num_series} series with {fetched.num_images} images are fetched, {fetched.num_new} of them now.")
    if fetched.num_nameless:
        print(f"{fetched.num_nameless} series name no patient; a ledger needs to be told whose they are.")
    return fetched


def _stored(server: DicomWebServer, folder: Path) -> None:
    with extra("dicom", "DICOMweb"):
        from monai_cadp.data.dicomweb_store import store_release
    stored = store_release(server, folder)
    print(f"{stored.num_objects} objects are stored, {stored.num_new} of them now.")
