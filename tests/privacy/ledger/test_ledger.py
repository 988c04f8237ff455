# SPDX-License-Identifier: Apache-2.0
"""Every subject's budget is spent once, every release is made once, and nothing says whose they are."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sqlite3
import threading

import pytest

from monai_cadp.privacy import Budget, BudgetExceededError, LedgerError, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest, read_secret, write_secret

CANARY = "Mustermann-1954"


def test_a_release_is_paid_for_drawn_and_then_returned_from_the_ledger(ledger, ask):
    first = ask.request(ledger, "anna", b"image", 3.0)
    assert ledger.reserve([first]) == {}
    assert ledger.spent("anna") == (3.0, 0.0)
    assert ledger.record({first.key: b"release"}) == {first.key: b"release"}
    assert ledger.reserve([first]) == {first.key: b"release"}
    assert ledger.spent("anna") == (3.0, 0.0) and ledger.spent("bert") == (0.0, 0.0)
    assert ledger.verify() == []


def test_a_reservation_without_a_release_is_paid_for_and_drawn_again(ledger, ask):
    lost = ask.request(ledger, "anna", b"image", 8.0)
    ledger.reserve([lost])
    assert ledger.reserve([lost]) == {}
    assert ledger.spent("anna") == (8.0, 0.0)
    assert ledger.record({lost.key: b"release"}) == {lost.key: b"release"}


def test_the_first_recorded_content_is_the_only_one(ledger, ask):
    request = ask.request(ledger, "anna", b"image")
    ledger.reserve([request])
    assert ledger.record({request.key: b"first"}) == ledger.record({request.key: b"second"}) == {request.key: b"first"}


def test_a_batch_is_reserved_whole_or_not_at_all(ledger, ask, refused):
    good, bad = ask.request(ledger, "anna", b"1", 5.0), ask.request(ledger, "bert", b"2", 8.1)
    with refused(BudgetExceededError, "1 of 2 subjects over the cap"):
        ledger.reserve([good, bad])
    assert ledger.spent("anna") == ledger.spent("bert") == (0.0, 0.0)
    assert ledger.summary()["reserved"] == 0
    ledger.reserve([good])
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "anna", b"3", 3.1)])
    ledger.reserve([ask.request(ledger, "anna", b"3", 3.0)])
    assert ledger.spent("anna") == (8.0, 0.0)


def test_several_images_of_one_subject_in_one_batch_add_up(ledger, ask, refused):
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "anna", bytes([i])) for i in range(9)])
    ledger.reserve([ask.request(ledger, "anna", bytes([i])) for i in range(8)])
    assert ledger.spent("anna") == (8.0, 0.0)


def test_the_same_image_twice_in_a_batch_is_one_release(ledger, ask):
    request = ask.request(ledger, "anna", b"image", 8.0)
    ledger.reserve([request, request])
    assert ledger.spent("anna") == (8.0, 0.0)


def test_epsilons_are_added_as_they_are_written(tmp_path, ask, refused):
    ledger = PrivacyLedger.create(tmp_path / "tenths.db", ask.secret, Budget(epsilon=1.0))
    ledger.reserve([ask.request(ledger, "anna", bytes([i]), 0.1) for i in range(10)])
    assert ledger.spent("anna") == (1.0, 0.0)
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "anna", b"one more", 1e-9)])


def test_deltas_have_a_cap_of_their_own(tmp_path, ask, refused):
    ledger = PrivacyLedger.create(tmp_path / "deltas.db", ask.secret, Budget(epsilon=8.0, delta=1e-5))
    ledger.reserve([ask.request(ledger, "anna", b"1", 1.0, 1e-5)])
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "anna", b"2", 1.0, 1e-9)])
    ledger.reserve([ask.request(ledger, "anna", b"3", 1.0)])


def test_a_subject_may_have_caps_of_its_own_and_the_last_ones_hold(ledger, ask, refused):
    ledger.set_budget("anna", 2.0)
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "anna", b"1", 3.0)])
    ledger.set_budget("anna", 20.0)
    ledger.set_budget("anna", 10.0)
    ledger.reserve([ask.request(ledger, "anna", b"1", 10.0)])
    with refused(BudgetExceededError, "over the cap"):
        ledger.reserve([ask.request(ledger, "bert", b"1", 10.0)])
    assert ledger.budget_of("anna").epsilon == 10.0 and ledger.budget_of("bert").epsilon == 8.0
    assert ledger.verify() == []


def test_identical_releases_may_be_composed_as_distributions_and_others_are_refused(tmp_path, ask, refused):
    budget = Budget(epsilon=4.0, delta=1e-6, accounting="identical")
    ledger = PrivacyLedger.create(tmp_path / "identical.db", ask.secret, budget)
    accepted = 0
    with pytest.raises(BudgetExceededError):
        while True:
            ledger.reserve([ask.request(ledger, "anna", bytes([accepted]), 0.1)])
            accepted += 1
    assert accepted > 1.2 * 40
    epsilon, delta = ledger.spent("anna")
    assert epsilon <= 4.0 and delta == 1e-6
    with refused(BudgetExceededError, "different mechanisms"):
        ledger.reserve([ask.request(ledger, "anna", b"other", 0.001)])


WHOLE = PrivacyGuarantee(epsilon=0.5, mechanism="shuffled", delta=1e-6)


def test_a_set_is_noted_once_in_any_order_and_only_before_its_releases(ledger, ask, refused):
    one, other, third = (ask.request(ledger, name, b"image") for name in ("anna", "bert", "carl"))
    code = ledger.begin_set([one.key, other.key], WHOLE)
    ledger.record({one.key: b"release"} if ledger.reserve([one], code) == {} else {})
    assert ledger.begin_set([other.key, one.key], WHOLE) == code
    assert [entry["kind"] for entry in ledger.export()] == ["opened", "set", "reserved", "within", "released"]
    # Reserved, though nothing was drawn yet: another process may be about to.
    ledger.reserve([third])
    for keys in ([one.key, third.key], [third.key], [one.key, other.key, third.key]):
        with refused(LedgerError, "that another folder may hold"):
            ledger.begin_set(keys, WHOLE)
    ledger.begin_set([other.key], WHOLE)
    assert ledger.verify() == [] and ledger.spent("bert") == (0.0, 0.0)


@pytest.mark.parametrize("meanwhile", ["by itself", "in another set"])
def test_a_set_is_refused_from_when_one_of_its_releases_was_reserved_otherwise(ledger, ask, refused, meanwhile):
    """Whoever knows one of them by name, or the other set, finds the others among fewer."""
    one, other = (ask.request(ledger, name, b"image") for name in ("anna", "bert"))
    code = ledger.begin_set([one.key, other.key], WHOLE)
    ledger.reserve([one], None if meanwhile == "by itself" else ledger.begin_set([one.key], WHOLE))
    before = ledger.export()
    with refused(LedgerError, "1 images of the set were released by themselves or in another set"):
        ledger.reserve([one, other], code)
    with refused(LedgerError, "1 images of the set were released by themselves or in another set"):
        ledger.begin_set([other.key, one.key], WHOLE)
    assert ledger.export() == before and ledger.verify() == []


def test_what_was_not_reserved_is_not_recorded(ledger, ask, refused):
    with refused(LedgerError, "never reserved"):
        ledger.record({ask.request(ledger, "anna", b"image").key: b"release"})
    assert ledger.summary()["released"] == 0 and ledger.record({}) == {}


def test_a_release_belongs_to_one_subject_and_has_one_cost(ledger, ask, refused):
    mine = ask.request(ledger, "anna", b"image", 1.0)
    ledger.reserve([mine])
    with refused(LedgerError, "another subject"):
        ledger.reserve([ReleaseRequest(ledger.subject("bert"), mine.key, mine.guarantee)])
    with refused(LedgerError, "another cost"):
        ledger.reserve([ReleaseRequest(mine.subject, mine.key, ask.request(ledger, "anna", b"image", 2.0).guarantee)])


def test_a_stored_release_that_was_altered_is_never_given_out(ledger, ask, tmp_path, refused):
    request = ask.request(ledger, "anna", b"image")
    ledger.reserve([request])
    ledger.record({request.key: b"release"})
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE contents SET content = x'00'")
    connection.close()
    with refused(LedgerError, "not the recorded one"):
        ledger.reserve([request])


@pytest.mark.parametrize("spelling", [" anna", "anna\n", "anna ", "Anna", "\uff21nna", "an\u200bna"])
def test_one_person_has_one_code_however_the_name_was_typed(ledger, spelling):
    assert ledger.subject(spelling) == ledger.subject("anna")
    assert ledger.subject("M\u00fcller") == ledger.subject("Mu\u0308ller")
    assert ledger.subject("007") == ledger.subject("7.0") == ledger.subject("7")


def test_a_name_that_no_encoding_knows_has_a_code_and_no_error_that_tells_it(ledger):
    assert ledger.subject("M\udcfcller") != ledger.subject("Muller")


def test_a_ledger_of_other_rules_for_subjects_is_refused_and_not_taken_for_empty(tmp_path, monkeypatch, refused):
    with monkeypatch.context() as patch:
        patch.setattr("monai_cadp.privacy.ledger.ledger.FORMAT", 1)
        PrivacyLedger.create(tmp_path / "old.db", bytes(32), Budget(epsilon=8.0))
    with refused(LedgerError, "made by another version"):
        PrivacyLedger(tmp_path / "old.db", bytes(32))


def test_errors_show_no_inner_error_that_tells_the_place(tmp_path):
    (tmp_path / "notes.db").touch(mode=0o600)
    (tmp_path / "notes.db").write_text("not a database at all" * 100)
    with pytest.raises(LedgerError) as caught:
        PrivacyLedger(tmp_path / "notes.db", bytes(32))
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_forked_process_loses_nothing_when_its_parent_closes_the_ledger(ledger, ask, tmp_path):
    """SQLite keeps its locks in the process's memory: an inherited connection would write into a file that is gone."""
    context = multiprocessing.get_context("fork")
    may_write, has_written = context.Event(), context.Event()
    request = ask.request(ledger, "anna", b"image", 3.0)

    def child():
        may_write.wait()
        ledger.reserve([request])
        ledger.record({request.key: b"from the child"})
        has_written.set()

    ledger.spent("anna")
    process = context.Process(target=child)
    process.start()
    ledger.close()
    may_write.set()
    process.join()
    assert has_written.is_set()
    again = PrivacyLedger(tmp_path / "ledger.db", ask.secret)
    assert again.spent("anna") == (3.0, 0.0)
    assert again.reserve([request]) == ledger.reserve([request]) == {request.key: b"from the child"}
    assert again.verify() == []


@pytest.mark.parametrize("subject", [None, "", "  ", 1.5, True, b"anna", float("nan")])
def test_a_subject_that_names_nobody_is_refused(ledger, refused, subject):
    with refused(ValueError, "subject of an image is missing"):
        ledger.subject(subject)


def test_codes_depend_on_the_secret_and_tell_parts_apart(ledger, tmp_path):
    other = PrivacyLedger.create(tmp_path / "other.db", bytes(32), Budget(8.0))
    assert ledger.subject("anna") != other.subject("anna")
    assert ledger.release_key([b"ab", b"c"]) != ledger.release_key([b"a", b"bc"])


def test_the_file_holds_no_name(ledger, ask, tmp_path):
    request = ask.request(ledger, CANARY, CANARY.encode())
    ledger.reserve([request])
    ledger.record({request.key: b"release"})
    ledger.set_budget(CANARY, 9.0)
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes()
    assert CANARY not in repr(ledger.export()) + repr(ledger.summary())


def test_a_ledger_opened_by_another_hand_is_the_same(ledger, ask, tmp_path):
    request = ask.request(ledger, "anna", b"image")
    ledger.reserve([request])
    for again in (PrivacyLedger(tmp_path / "ledger.db", ask.secret), pickle.loads(pickle.dumps(ledger))):
        assert again.spent("anna") == (1.0, 0.0) and again.unit == "patient" and again.budget == ledger.budget


def test_threads_share_a_ledger(ledger, ask):
    refusals = []

    def spend(name):
        for i in range(10):
            try:
                ledger.reserve([ask.request(ledger, "anna", f"{name}{i}".encode())])
            except BudgetExceededError:
                refusals.append(name)

    threads = [threading.Thread(target=spend, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent("anna") == (8.0, 0.0) and len(refusals) == 32 and ledger.verify() == []


def test_a_ledger_that_is_not_there_is_not_made_by_opening_it(tmp_path, refused):
    with refused(ValueError, "no ledger at this place"):
        PrivacyLedger(tmp_path / "missing.db", bytes(32))
    assert list(tmp_path.iterdir()) == []


def test_a_second_ledger_at_one_place_and_a_wrong_secret_are_refused(ledger, ask, tmp_path, refused):
    with refused(LedgerError, "ledger at this place already"):
        PrivacyLedger.create(tmp_path / "ledger.db", ask.secret, Budget(1.0))
    with refused(LedgerError, "secret is not that of this ledger"):
        PrivacyLedger(tmp_path / "ledger.db", bytes(32))
    with refused(ValueError, "secret is no text of 32 bytes"):
        PrivacyLedger(tmp_path / "ledger.db", b"short")


def test_a_file_of_another_kind_is_refused(tmp_path, refused):
    (tmp_path / "notes.txt").touch(mode=0o600)
    (tmp_path / "notes.txt").write_text("not a database, but a text that is long enough to be one" * 10)
    for use in (PrivacyLedger, lambda *place: PrivacyLedger.create(*place, Budget(1.0))):
        with refused(LedgerError, "could not be read or written"):
            use(tmp_path / "notes.txt", bytes(32))
    with refused(ValueError, "no known kind"):
        PrivacyLedger("oracle://nowhere", bytes(32))


@pytest.mark.parametrize(
    "numbers",
    [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"epsilon": 1.0, "delta": 1.0}, {"epsilon": 1.0, "delta": -1}],
)
def test_a_budget_that_means_nothing_is_refused(refused, numbers):
    with refused(ValueError, "expected a"):
        Budget(**numbers)
    with refused(ValueError, "accounting is 'best'"):
        Budget(1.0, accounting="best")


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path, refused):
    secret = write_secret(tmp_path / "secret")
    assert read_secret(tmp_path / "secret") == secret and len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    with refused(ValueError, "exists or cannot be written"):
        write_secret(tmp_path / "secret")
    (tmp_path / "empty").touch(mode=0o600)
    for name in ("empty", "missing"):
        with refused(ValueError, "missing or holds none"):
            read_secret(tmp_path / name)


def test_the_budget_is_that_of_the_guarantee_document(ledger):
    """The cost is read from the stored document, so that it cannot be changed afterwards without a trace."""
    cost = PrivacyGuarantee(epsilon=2.0, mechanism="SubsetSelection", unit="image", parameters={"m": 3})
    ledger.reserve([ReleaseRequest(ledger.subject("anna"), ledger.release_key([b"1"]), cost)])
    (reserved,) = [entry for entry in ledger.export() if entry["kind"] == "reserved"]
    assert PrivacyGuarantee.from_dict(reserved["guarantee"]) == cost


def test_a_summary_tells_numbers_of_nobody(ledger, ask):
    assert ledger.summary()["unit"] == ledger.unit
    ledger.reserve([ask.request(ledger, "anna", b"1")])
    told = ledger.summary()
    assert (told["subjects"], told["reserved"], told["released"]) == (1, 1, 0) and "anna" not in str(told)


def test_a_ledger_names_the_format_that_other_versions_know_it_by(ledger):
    assert json.loads(ledger.export()[0]["body"])["format"] == 3
