# SPDX-License-Identifier: Apache-2.0
"""The ledger from the command line."""

from __future__ import annotations

import io
import json
import sqlite3

import pytest

from monai_cadp.__main__ import main
from monai_cadp.privacy import LedgerError, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest, read_secret

CANARY = "Mustermann-1954"


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command on the test's ledger; returns its exit code and what it printed."""

    def command(name, *options):
        place = ["--ledger", str(tmp_path / "ledger.db"), "--secret_file", str(tmp_path / "secret")]
        code = main(["ledger", name, *place, *options])
        return code, capsys.readouterr()

    return command


@pytest.fixture
def ledger(run, tmp_path):
    assert run("init", "--epsilon", "8", "--unit", "volume")[0] == 0
    ledger = PrivacyLedger(tmp_path / "ledger.db", read_secret(tmp_path / "secret"))
    cost = PrivacyGuarantee(epsilon=2.5, mechanism="SubsetSelection")
    request = ReleaseRequest(ledger.subject(CANARY), ledger.release_key([b"image"]), cost)
    ledger.reserve([request])
    ledger.record({request.key: b"release"})
    return ledger


def test_show_says_numbers_and_nobodys_name(run, ledger):
    code, printed = run("show")
    assert code == 0 and CANARY not in printed.out
    for line in ("unit: volume", "budget epsilon: 8.0", "subjects: 1", "reserved: 1", "released: 1"):
        assert line in printed.out.splitlines()


def test_a_subject_is_asked_for_by_option_or_by_standard_input(run, ledger, monkeypatch):
    assert "spent: epsilon 2.5 of 8" in run("subject", "--subject", CANARY)[1].out
    monkeypatch.setattr("sys.stdin", io.StringIO(CANARY + "\n"))
    assert "spent: epsilon 2.5 of 12" in run("subject", "--subject", "-", "--epsilon", "12")[1].out
    assert ledger.budget_of(CANARY).epsilon == 12.0


@pytest.mark.parametrize("typed", [CANARY.upper(), f" {CANARY} ", CANARY.replace("1", "\uff11"), f"{CANARY}.0"])
def test_a_subject_is_the_one_that_was_released_however_it_is_typed(run, ledger, typed):
    assert "spent: epsilon 2.5 of 8" in run("subject", "--subject", typed)[1].out


def test_ids_that_are_one_number_are_two_subjects(run, ledger):
    for subject in ("1_12", "11_2"):
        assert run("subject", "--subject", subject, "--epsilon", f"{len(subject.split('_')[0]) + 3}")[0] == 0
    assert [ledger.budget_of(subject).epsilon for subject in ("1_12", "11_2", "112")] == [4.0, 5.0, 8.0]


def test_verify_ends_with_1_when_something_is_wrong(run, ledger, tmp_path):
    assert run("head", "--out", str(tmp_path / "head.json"))[0] == 0
    code, printed = run("verify", "--head", str(tmp_path / "head.json"))
    assert code == 0 and "as it was written" in printed.out
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE entries SET body = 'x' WHERE sequence = 2")
    connection.close()
    code, printed = run("verify")
    assert code == 1 and "Entry 2 was changed" in printed.out


def test_export_writes_all_entries_and_no_content(run, ledger, tmp_path):
    assert run("export", "--out", str(tmp_path / "entries.json"))[0] == 0
    text = (tmp_path / "entries.json").read_text()
    assert [entry["kind"] for entry in json.loads(text)] == ["opened", "reserved", "released"]
    assert CANARY not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["show"], "no ledger at this place"),
        (["init", "--epsilon", "0"], "epsilon is 0.0"),
        (["subject", "--subject", "anna", "--delta", "1e-6"], "--delta was given without --epsilon; give both"),
        (["verify", "--head", "missing.json"], "kept head could not be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(run, tmp_path, options, message):
    if options[0] != "init":
        (tmp_path / "secret").touch(mode=0o600)
        (tmp_path / "secret").write_text("00" * 32)
    code, printed = run(*options)
    assert code == 2 and message in printed.err
    assert printed.err.count("\n") == 1 and str(tmp_path) not in printed.err and "Traceback" not in printed.err


def test_a_secret_whose_name_is_too_long_is_one_sentence(tmp_path, capsys):
    place = ["--ledger", str(tmp_path / "ledger.db"), "--secret_file", str(tmp_path / (300 * "x"))]
    assert main(["ledger", "init", "--epsilon", "1", *place]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[1, 2]", "null", "no JSON"])
def test_a_file_that_is_no_head_is_not_taken_for_one(run, ledger, tmp_path, content):
    (tmp_path / "head.json").write_text(content)
    code, printed = run("verify", "--head", str(tmp_path / "head.json"))
    assert code == 2 and "kept head could not be read" in printed.err


def test_an_init_that_fails_late_keeps_the_secret_and_can_be_tried_again(run, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise LedgerError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(PrivacyLedger, "create", fails)
        assert run("init", "--epsilon", "8")[0] == 2
    secret = read_secret(tmp_path / "secret")
    assert run("init", "--epsilon", "8")[0] == 0
    assert PrivacyLedger(tmp_path / "ledger.db", secret).budget.epsilon == 8.0


def test_a_refused_init_leaves_nothing_behind(run, tmp_path):
    assert run("init", "--epsilon", "-1")[0] == 2
    assert run("init", "--epsilon", "8", "--unit", "person")[0] == 2
    assert list(tmp_path.iterdir()) == []
