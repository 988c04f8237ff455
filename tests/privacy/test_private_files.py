# SPDX-License-Identifier: Apache-2.0
"""Files of the ledger are their owner's alone from the first byte on, and others are refused."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from monai_cadp.privacy import Budget, LedgerError, PrivacyLedger
from monai_cadp.privacy.ledger import read_secret, write_secret
from monai_cadp.privacy.private_files import check_folder, create_private, new_private, write_private

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077])
def umask(request):
    """Whatever others may do by default."""
    earlier = os.umask(request.param)
    yield request.param
    os.umask(earlier)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_ledger_and_all_files_beside_it_are_the_owners_alone(tmp_path, monkeypatch):
    """Looked at in every moment, also while a transaction is open."""
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o755)
    seen, finished = {}, threading.Event()

    def watch():
        while not finished.is_set():
            for path in folder.iterdir():
                try:
                    seen.setdefault(path.name, set()).add(mode(path))
                except FileNotFoundError:
                    pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        secret = write_secret(folder / "secret")
        ledger = PrivacyLedger.create(folder / "ledger.db", secret, Budget(8.0))
        ledger.set_budget("anna", 2.0)
        with ledger._writing():
            for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm", "secret"):
                assert mode(folder / name) == 0o600, name
    finally:
        finished.set()
        watcher.join()
    assert {"ledger.db", "secret"} <= seen.keys()
    assert all(modes == {0o600} for modes in seen.values()), seen


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_secret_that_others_may_reach_is_refused_with_what_to_type(tmp_path, refused, bits):
    path = tmp_path / "secret"
    secret = write_secret(path)
    path.chmod(bits)
    with refused(ValueError, "chmod 600"):
        read_secret(path)
    path.chmod(0o400)
    assert read_secret(path) == secret


def test_a_secret_behind_a_link_is_judged_by_its_file(tmp_path, refused):
    secret = write_secret(tmp_path / "secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert read_secret(tmp_path / "link") == secret
    (tmp_path / "secret").chmod(0o644)
    with refused(ValueError, "chmod 600"):
        read_secret(tmp_path / "link")


def test_a_secret_or_a_ledger_is_never_made_through_a_link(tmp_path, refused):
    for name in ("secret", "ledger.db"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with refused(ValueError, "give the path of a new one"):
        write_secret(tmp_path / "secret")
    with refused(ValueError, "could not be made"):
        PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(8.0))
    assert not (tmp_path / "elsewhere").exists()


def test_a_database_that_others_may_reach_is_refused_with_what_to_type(tmp_path, refused):
    path = tmp_path / "ledger.db"
    PrivacyLedger.create(path, bytes(32), Budget(8.0)).close()
    path.chmod(0o644)
    with refused(ValueError, "chmod 600"):
        PrivacyLedger(path, bytes(32))
    path.chmod(0o600)
    assert PrivacyLedger(path, bytes(32)).summary()["subjects"] == 0


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o703])
def test_a_folder_into_which_everybody_may_write_is_refused(tmp_path, refused, bits):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    PrivacyLedger.create(folder / "ledger.db", bytes(32), Budget(8.0)).close()
    folder.chmod(bits)
    for use in (PrivacyLedger, lambda path, secret: PrivacyLedger.create(path, secret, Budget(8.0))):
        with refused(ValueError, "chmod o-w"):
            use(folder / "ledger.db", bytes(32))
    (tmp_path / "link.db").symlink_to(folder / "ledger.db")
    with refused(ValueError, "chmod o-w"):
        check_folder(tmp_path / "link.db", "The ledger's database")


def test_a_link_that_everybody_may_exchange_is_refused(tmp_path, refused):
    PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(8.0)).close()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link.db").symlink_to(tmp_path / "ledger.db")
    (tmp_path / "open").chmod(0o777)
    with refused(ValueError, "chmod o-w"):
        PrivacyLedger(tmp_path / "open" / "link.db", bytes(32))


def test_an_attempt_that_was_stopped_can_be_made_again_and_a_ledger_is_never_made_twice(tmp_path):
    os.close(create_private(tmp_path / "ledger.db"))
    PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(8.0))
    with pytest.raises(LedgerError, match="already"):
        PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(8.0))


@pytest.mark.parametrize("place", ["sqlite://", "sqlite:///:memory:", ":memory:"])
def test_a_ledger_that_would_be_forgotten_is_refused(refused, place):
    with refused(ValueError, "could not be made"):
        PrivacyLedger.create(place, bytes(32), Budget(8.0))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "entries.json"
    write_private(path, "first")
    with pytest.raises(ZeroDivisionError), new_private(path) as file:
        file.write(b"half")
        assert [mode(found) for found in tmp_path.iterdir()] == [0o600, 0o600]
        raise ZeroDivisionError
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
    write_private(path, b"second")
    assert path.read_bytes() == b"second" and mode(path) == 0o600
