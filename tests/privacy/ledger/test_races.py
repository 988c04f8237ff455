# SPDX-License-Identifier: Apache-2.0
"""Processes that race for one cap spend exactly the cap, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from monai_cadp.privacy import Budget, BudgetExceededError, LedgerError, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest

pytestmark = pytest.mark.slow

NUM_REQUESTS = 2_000
COST = PrivacyGuarantee(epsilon=0.1, mechanism="SubsetSelection")


def spend(ledger, name, count, results):
    """Ask for ``count`` releases of one subject, one by one; report how many were granted and what else happened."""
    granted, errors = 0, []
    for number in range(count):
        request = ReleaseRequest(ledger.subject("anna"), ledger.release_key([f"{name} {number}".encode()]), COST)
        try:
            ledger.reserve([request])
            ledger.record({request.key: name.encode()})
            granted += 1
        except BudgetExceededError:
            continue
        except BaseException as error:
            errors.append(repr(error))
            break
    results.put((granted, errors))


def race(ledger, num_processes, num_requests):
    """Let processes race for one cap; return how many releases were granted, and all errors but refusals."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    share = num_requests // num_processes
    names = [f"process {index}" for index in range(num_processes)]
    processes = [context.Process(target=spend, args=(ledger, name, share, results)) for name in names]
    for process in processes:
        process.start()
    outcomes = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(granted for granted, _ in outcomes), [error for _, errors in outcomes for error in errors]


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def as_owner():
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def postgres():
    """URL of a server that was made for these tests, on a free port of this machine."""
    if programs() is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    control = [*as_owner(), str(programs() / "pg_ctl"), "-D", str(folder / "data"), "-w", "-s"]
    initdb = [str(programs() / "initdb"), "-D", str(folder / "data"), "-U", "owner", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*as_owner(), *initdb], check=True, capture_output=True, cwd=folder)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], check=True, cwd=folder)
    try:
        yield f"postgresql+psycopg://owner@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=folder)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return request.getfixturevalue("postgres")


def test_four_processes_spend_exactly_the_cap(location, ask):
    ledger = PrivacyLedger.create(location, ask.secret, Budget(epsilon=8.0))
    granted, errors = race(ledger, num_processes=4, num_requests=NUM_REQUESTS)
    assert errors == []
    assert granted == 80
    assert ledger.spent("anna") == (8.0, 0.0)
    assert ledger.verify() == []
    with pytest.raises(LedgerError, match="at this place already"):
        PrivacyLedger.create(location, ask.secret, Budget(epsilon=8.0))


def test_a_server_that_is_not_there_is_an_error_that_names_no_place(ask, refused):
    with refused(LedgerError, "could not be read or written"):
        PrivacyLedger("postgresql+psycopg://owner@127.0.0.1:1/mustermann", ask.secret)
