# SPDX-License-Identifier: Apache-2.0
"""Servers on this machine to measure and test DICOM over the network: a real archive, and one in front of it."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Archive", "Front", "answering", "is_installed"]

# Where Debian and Orthanc's own packages put it.
PLUGINS = [
    Path(folder, "libOrthancDicomWeb.so")
    for folder in ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")
]
FORWARDED = ("Accept", "Content-Type")

# What a server answers: a status, headers and a body.
Answer = tuple[int, Mapping[str, str], bytes]


def is_installed() -> bool:
    """Return whether archives can be started here."""
    return all(map(shutil.which, ("Orthanc", "storescu"))) and any(path.exists() for path in PLUGINS)


class Archive:
    """An Orthanc, asked over HTTP, filled over DICOM or by DICOMweb; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.http_port, self.dicom_port = folder, _free_port(), _free_port()
        self.address = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb = f"{self.address}/dicom-web"
        settings = {
            "DicomAet": "ARCHIVE",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [next(str(path) for path in PLUGINS if path.exists())],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        self.start()

    def start(self) -> None:
        """Start it, for the first time or after :meth:`kill`, and wait until it answers."""
        command = ["Orthanc", str(self.folder / "settings.json")]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self._process.stderr is not None
        assert any("Orthanc has started" in line for line in self._process.stderr)
        # Read on, or it would wait for a reader some day.
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kill it; what it has taken stays."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def store(self, folder: Path) -> None:
        """Send it all files of a folder over DICOM."""
        command = ["storescu", "-aec", "ARCHIVE", "127.0.0.1", str(self.dicom_port), "+sd", "+r", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    def ask(self, path: str) -> bytes:
        """Return what it answers to a request of its own interface."""
        with urllib.request.urlopen(self.address + path) as answer:
            return bytes(answer.read())

    def count(self) -> int:
        """Return how many objects it holds."""
        return json.loads(self.ask("/statistics"))["CountInstances"]

    def series(self) -> set[str]:
        """Return its names of all series."""
        return set(json.loads(self.ask("/series")))

    def fetch(self, series: str) -> list[bytes]:
        """Return the files of a series as the archive gives them."""
        instances = json.loads(self.ask(f"/series/{series}"))["Instances"]
        return [self.ask(f"/instances/{instance}/file") for instance in instances]

    def files(self) -> list[bytes]:
        """Return all files as the archive gives them."""
        return [content for series in sorted(self.series()) for content in self.fetch(series)]


class Front:
    """Passes requests on to an archive, keeps what was sent, and has something happen at one of them.

    ``arm(at, happens)`` counts requests from 1 anew, and calls ``happens`` before the one of this number, or after it.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive, self._lock = archive, threading.Lock()
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.arm(None)

    def arm(self, at: int | None, happens: Callable[[], object] = lambda: None, after: bool = False) -> None:
        """Have something happen at a request; at none, nothing any more."""
        self._count, self._at, self._happens, self._after = 0, at, happens, after

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer as the archive does, or that it cannot be reached."""
        with self._lock:
            self.requests.append((method, path, headers, body))
            self._count += 1
            is_now = self._count == self._at
        if is_now and not self._after:
            self._happens()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.archive.http_port)
            kept = {name: headers[name] for name in FORWARDED if name in headers}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
        except OSError:
            return 502, {}, b""
        if is_now and self._after:
            self._happens()
        return answer.status, {"Content-Type": answer.headers.get("Content-Type", "")}, content


@contextmanager
def answering(answer: Callable[..., Answer], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server; yields its address.

    ``answer(method, path, headers, body)`` returns a status, headers and a body, of which a Content-Length that is too
    large makes one that breaks off.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            if int(headers.get("Content-Length", 0)) > len(content):
                self.close_connection = True

        do_GET = do_POST = respond

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Whoever asked was killed."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'' if context is None else 's'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
