# SPDX-License-Identifier: Apache-2.0
"""A certificate holds for one folder, and refuses whatever was changed, by name."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from monai_cadp.certificate import (
    CertificateError,
    make_certificate,
    read_private_key,
    read_public_key,
    verify_certificate,
)
from monai_cadp.certificate.certificate import read_certificate, signed, verified
from monai_cadp.certificate.folder import FolderFiles
from monai_cadp.release import ReleasedFolder

from .conftest import write_release

CHANGES = 10_000


@pytest.fixture
def certified(folder, key):
    make_certificate(folder, key, signer="A hospital")
    return folder


def contents(folder):
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def refused_by(contents, key):
    """What a verification of these files says against them; None if it has nothing."""
    files = {name: content for name, content in contents.items() if name != "certificate.json"}
    try:
        verified(FolderFiles.of(files), contents["certificate.json"], key.public_key())
    except CertificateError as error:
        return str(error)
    return None


def test_an_unchanged_folder_is_verified(certified, key):
    result = verify_certificate(certified, key.public_key())
    assert [float(one.epsilon) for one in result.guarantees] == [4.0]
    assert result.statement["num_releases"] == 3 and result.statement["signer"] == "A hospital"
    assert result.statement["smallest_group"] == 1
    assert refused_by(contents(certified), key) is None


@pytest.mark.slow
def test_ten_thousand_changes_of_single_bytes_are_refused_and_named(certified, key):
    draw = random.Random(0)
    whole = contents(certified)
    for _ in range(CHANGES):
        name = draw.choice(sorted(whole))
        place, content = draw.randrange(len(whole[name])), bytearray(whole[name])
        content[place] ^= draw.randrange(1, 256)
        said = refused_by({**whole, name: bytes(content)}, key)
        assert said is not None and name in said, (name, place, said)


def paths_to_values(plain, path=()):
    """Where every single value of a document is."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else []
    if not items or not plain:
        yield path
    for name, value in items:
        yield from paths_to_values(value, (*path, name))


def another(value, draw):
    """A value of the same kind that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + draw.choice([-1, 1, 10])
    if isinstance(value, str) and value:
        place = draw.randrange(len(value))
        return value[:place] + ("1" if value[place] != "1" else "2") + value[place + 1 :]
    return draw.choice(["something", 1])


@pytest.mark.slow
def test_ten_thousand_changes_of_single_fields_are_refused_and_named(certified, key):
    draw = random.Random(1)
    whole = contents(certified)
    original = json.loads(whole["certificate.json"])
    paths = list(paths_to_values(original["statement"]))
    assert len(paths) > 40
    for _ in range(CHANGES):
        changed = json.loads(whole["certificate.json"])
        path = draw.choice(paths)
        part = changed["statement"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = another(part[path[-1]], draw)
        content = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        said = refused_by({**whole, "certificate.json": content}, key)
        wanted = path[1] if path[0] == "files" else ".".join(map(str, path))
        assert said is not None and wanted in said, (path, said)


@pytest.mark.parametrize("part", ["digests", "public_key", "signature", "statement"])
def test_a_part_that_is_missing_from_a_certificate_is_missed(certified, key, part):
    whole = contents(certified)
    changed = json.loads(whole["certificate.json"])
    del changed[part]
    assert "parts of a certificate" in refused_by({**whole, "certificate.json": json.dumps(changed).encode()}, key)


# --- the files of the folder ------------------------------------------------------------------------------------------


def test_a_missing_an_added_and_a_renamed_file_are_refused_by_name(certified, key):
    image = certified / "release_000002.png"
    kept = image.read_bytes()
    image.rename(certified / "release_000009.png")
    with pytest.raises(CertificateError, match=r"release_000002\.png is missing"):
        verify_certificate(certified, key.public_key())
    image.write_bytes(kept)
    with pytest.raises(CertificateError, match=r"release_000009\.png.* is not in the certificate"):
        verify_certificate(certified, key.public_key())
    (certified / "release_000009.png").unlink()
    assert verify_certificate(certified, key.public_key())


@pytest.mark.parametrize("kind", ["link", "folder", "hidden"])
def test_nothing_hides_in_a_certified_folder(certified, key, kind):
    extra = certified / (".extra" if kind == "hidden" else "extra")
    if kind == "link":
        extra.symlink_to(certified / "summary.json")
    elif kind == "folder":
        extra.mkdir()
    else:
        extra.write_text("more")
    with pytest.raises(CertificateError, match="extra"):
        verify_certificate(certified, key.public_key())


def test_two_files_that_change_places_are_refused(certified, key):
    whole = contents(certified)
    whole["release_000001.png"], whole["release_000002.png"] = whole["release_000002.png"], whole["release_000001.png"]
    assert "release_000001.png is not the certified file" in refused_by(whole, key)


def test_another_key_has_not_signed(certified, key):
    with pytest.raises(CertificateError, match="public_key is not the given one"):
        verify_certificate(certified, Ed25519PrivateKey.generate().public_key())


def test_a_certificate_is_not_overwritten(certified, key):
    with pytest.raises(CertificateError, match="never overwritten"):
        make_certificate(certified, key)


# --- whoever signs a false statement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [3.9999, 1.0, 0.0])
def test_a_folder_with_a_false_epsilon_is_not_signed_and_refused_though_it_was(tmp_path, guarantee, key, epsilon):
    folder = write_release(tmp_path / "false", {**guarantee.to_dict(), "epsilon": epsilon})
    with pytest.raises(CertificateError, match=rf"states epsilon {epsilon:g}, but its integers give 4\.$"):
        make_certificate(folder, key)
    assert not (folder / "certificate.json").exists()
    # A hostile signer leaves the check out: cards, summary and statement agree, and the signature is valid.
    true = write_release(tmp_path / "true", guarantee.to_dict())
    make_certificate(true, key)
    statement = json.loads(read_certificate(true))["statement"]
    files = contents(folder)
    from monai_cadp.certificate.certificate import _derivable

    hostile = signed({**statement, **_derivable(FolderFiles.of(files))}, key)
    assert f"states epsilon {epsilon:g}" in refused_by({**files, "certificate.json": hostile}, key)


def test_a_statement_that_says_something_else_than_the_cards_is_refused_though_it_is_signed(certified, key):
    whole = contents(certified)
    statement = json.loads(whole["certificate.json"])["statement"]
    statement["guarantees"][0]["guarantee"]["epsilon"] = "1.0"
    said = refused_by({**whole, "certificate.json": signed(statement, key)}, key)
    assert "guarantees.0.guarantee.epsilon is not what the files of the folder say" in said


def test_cards_that_contradict_the_summary_are_not_signed(folder, key):
    card = folder / "release_000001_privacy.json"
    card.write_text(card.read_text().replace('"epsilon": 4.0', '"epsilon": 5.0'))
    with pytest.raises(CertificateError, match=r"summary\.json: its guarantees"):
        make_certificate(folder, key)


def test_a_name_that_stands_twice_in_a_card_is_not_signed(folder, key):
    card = folder / "release_000001_privacy.json"
    card.write_text(card.read_text().replace('"epsilon": 4.0', '"epsilon": 1.0, "epsilon": 4.0'))
    with pytest.raises(CertificateError, match=r"release_000001_privacy\.json is not a JSON document with one meaning"):
        make_certificate(folder, key)


def test_a_file_without_a_card_is_not_signed(folder, key):
    (folder / "Mustermann.png").write_bytes(b"an original")
    with pytest.raises(CertificateError, match=r"Mustermann\.png has no privacy card"):
        make_certificate(folder, key)


@pytest.fixture
def pairs(tmp_path, guarantee):
    """Volumes with their masks."""
    return written_pairs(tmp_path / "pairs", guarantee)


def written_pairs(folder, guarantee, volume_format="nifti"):
    options = {"num_expected": 3, "num_mask_classes": 2, "left_out": 1, "volume_format": volume_format}
    with ReleasedFolder(folder, **options) as released:
        for label in (0, 1, 0):
            released.write(torch.rand(2, 4, 4, 4), guarantee.to_dict(), label, np.zeros((2, 2, 3), np.uint8))
    return folder


@pytest.mark.parametrize("volume_format", ["nifti", "dicom"])
def test_volumes_with_masks_are_certified(tmp_path, guarantee, key, volume_format):
    folder = written_pairs(tmp_path / "pairs", guarantee, volume_format)
    make_certificate(folder, key)
    assert verify_certificate(folder, key.public_key())


@pytest.mark.parametrize("added", ["images/0002.nii.gz", "labels/0002.png", "images/0009/slice_0001.dcm"])
def test_a_second_image_of_a_series_with_a_mask_is_not_signed(tmp_path, guarantee, key, added):
    folder = written_pairs(tmp_path / "pairs", guarantee, "dicom")
    (folder / added).parent.mkdir(exist_ok=True)
    (folder / added).touch()
    with pytest.raises(CertificateError, match=r"is the card of no release|has no privacy card"):
        make_certificate(folder, key)


def test_a_series_without_its_segmentation_is_not_signed(tmp_path, guarantee, key):
    folder = written_pairs(tmp_path / "pairs", guarantee, "dicom")
    (folder / "labels" / "0003.dcm").unlink()
    with pytest.raises(CertificateError, match=r"0003_privacy\.json .* or its mask"):
        make_certificate(folder, key)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: (folder / "labels" / "0002.nii.gz").unlink(), r"0002_privacy\.json .* or its mask"),
        (lambda folder: (folder / "cards" / "0002_privacy.json").unlink(), r"has no privacy card"),
        (lambda folder: (folder / "images" / "original.nii.gz").touch(), r"original\.nii\.gz has no privacy card"),
    ],
)
def test_a_pair_that_lacks_a_part_or_a_card_is_not_signed(pairs, key, change, match):
    change(pairs)
    with pytest.raises(CertificateError, match=match):
        make_certificate(pairs, key)


@pytest.mark.parametrize("change", ["label", "image", "mask", "subject", "fewer"])
def test_a_datalist_that_contradicts_the_cards_is_not_signed(pairs, key, change):
    file = pairs / "datalist.json"
    entries = json.loads(file.read_text())["training"]
    if change == "fewer":
        entries.pop()
    else:
        entries[0] |= {"label": 7} if change == "label" else {change: "images/original.nii.gz"}
    file.write_text(json.dumps({"training": entries}))
    with pytest.raises(CertificateError, match=r"datalist\.json: "):
        make_certificate(pairs, key)


def test_a_card_that_leaves_out_another_number_than_the_summary_is_not_signed(pairs, key):
    card = pairs / "cards" / "0001_privacy.json"
    card.write_text(card.read_text().replace('"left_out": 1', '"left_out": 0'))
    with pytest.raises(CertificateError, match=r"0001_privacy\.json states another left_out than summary\.json"):
        make_certificate(pairs, key)


def rewrite(path, **changes):
    """Change values of a document of a released folder."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["release_000001.png", "release_000001/1", "cards/release_000001"])
def test_a_second_card_does_not_make_two_releases_of_one_image(folder, guarantee, key, name):
    """Or a set would hide among as many as there are cards."""
    card = folder / f"{name}_privacy.json"
    card.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "release_000001_privacy.json", card)
    label = json.loads(card.read_text())["label"]
    counts = {str(other): (2 if other == 0 else 1) + (other == label) for other in (0, 1)}
    rewrite(
        folder / "summary.json", count=4, labels=counts, guarantees=[{"count": 4, "guarantee": guarantee.to_dict()}]
    )
    (folder / "datalist.json").unlink()
    with pytest.raises(CertificateError, match=r"_privacy\.json is (not the only card|the card of no release, or of)"):
        make_certificate(folder, key)


@pytest.mark.parametrize(
    "name",
    ["release_000001.dcm", "release_000001/original.png", "release_000001/notes.txt", "cards/release_000001.png"],
)
def test_a_second_image_of_one_card_is_not_signed(folder, key, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"an original")
    with pytest.raises(
        CertificateError, match=r"release_000001(_privacy\.json is the card of no|.* has no privacy card)"
    ):
        make_certificate(folder, key)


@pytest.mark.parametrize("added", ["slice_0005.dcm", "slice_0007.dcm", "original.dcm"])
def test_a_series_has_the_slices_of_its_card_and_no_other(tmp_path, guarantee, key, added):
    folder = written_pairs(tmp_path / "pairs", guarantee, "dicom")
    (folder / "images" / "0002" / added).touch()
    with pytest.raises(
        CertificateError, match=r"images/0002 holds something else than the slices .*/0002_privacy\.json"
    ):
        make_certificate(folder, key)


def write_table(folder, guarantee, count, rows='age,note\n40,"two\nlines"\n50,none\n'):
    folder.mkdir()
    (folder / "released.csv").write_text(rows)
    card = {"count": count, "guarantee": guarantee.to_dict(), "schema": {}, "software": {}}
    (folder / "released_privacy.json").write_text(json.dumps(card))
    return folder


def test_a_table_is_certified_with_the_number_of_its_rows(tmp_path, guarantee, key):
    folder = write_table(tmp_path / "table", guarantee, 2)
    make_certificate(folder, key)
    assert verify_certificate(folder, key.public_key()).statement["num_releases"] == 2
    assert refused_by(contents(folder), key) is None


@pytest.mark.parametrize("count", [1, 3, 10_000, True])
def test_a_table_with_another_number_of_rows_than_its_card_states_is_not_signed(tmp_path, guarantee, key, count):
    folder = write_table(tmp_path / "table", guarantee, count, rows="age\n40\n" if count is True else "age\n40\n50\n")
    with pytest.raises(CertificateError, match=r"released_privacy\.json: its count is not the number of rows"):
        make_certificate(folder, key)


def test_one_image_does_not_count_as_a_table_of_many(tmp_path, guarantee, key):
    folder = write_table(tmp_path / "table", guarantee, 10_000)
    (folder / "released.csv").rename(folder / "released.png")
    with pytest.raises(CertificateError, match=r"released_privacy\.json: its count is not the number of rows"):
        make_certificate(folder, key)


def test_a_list_of_images_holds_each_once_with_its_own_mask(pairs, key):
    file = pairs / "datalist.json"
    entries = json.loads(file.read_text())["training"]
    first, second = entries[:2]
    swapped = [{**first, "mask": second["mask"]}, {**second, "mask": first["mask"]}, *entries[2:]]
    turned = [{**entry, "image": entry["mask"], "mask": entry["image"]} for entry in entries]
    for false in (swapped, turned, [{**first, "label": 7}, *entries], [*entries, first]):
        file.write_text(json.dumps({"training": false}))
        with pytest.raises(CertificateError, match=r"datalist\.json: its images, masks and labels"):
            make_certificate(pairs, key)


def resigned(whole, key, **changes):
    """What a hostile signer makes of a certified folder by other values in the statement."""
    statement = json.loads(whole["certificate.json"])["statement"]
    return {**whole, "certificate.json": signed({**statement, **changes}, key)}


def test_true_is_not_the_number_1(tmp_path, guarantee, key):
    folder = write_release(tmp_path / "one", guarantee.to_dict(), labels=(0,))
    make_certificate(folder, key)
    whole = contents(folder)
    (kind,) = json.loads(whole["certificate.json"])["statement"]["guarantees"]
    for name, value in {"num_releases": True, "version": True, "guarantees": [{**kind, "count": True}]}.items():
        assert refused_by(resigned(whole, key, **{name: value}), key), name
    (folder / "certificate.json").unlink()
    summary = (folder / "summary.json").read_text()
    for changes in ({"count": True}, {"labels": {"0": True}}):
        (folder / "summary.json").write_text(summary)
        rewrite(folder / "summary.json", **changes)
        with pytest.raises(CertificateError, match=r"summary\.json: its "):
            make_certificate(folder, key)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issued", "whenever; epsilon is 0.1"),
        ("issued", {"a": 1}),
        ("signer", {"a": 1}),
        ("certified_with", ["a"]),
        ("ledger_head", {"sequence": 1, "code": {"a": 1}, "signature": "5160"}),
        ("audit", {"audits": [], "controls": []}),
    ],
)
def test_the_signers_words_are_of_the_kinds_that_a_certificate_has(certified, key, name, value):
    assert name in refused_by(resigned(contents(certified), key, **{name: value}), key)


def test_a_signature_has_one_form(certified, key):
    whole = contents(certified)
    parts = json.loads(whole["certificate.json"])
    text = parts["signature"]
    for other in (text.upper(), f"{text[:2]} {text[2:]}"):
        content = json.dumps({**parts, "signature": other}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        assert "the signature does not fit" in refused_by({**whole, "certificate.json": content}, key)


def test_names_that_are_added_without_a_value_or_hold_points_are_refused_in_a_sentence(certified, key):
    whole = contents(certified)
    parts = json.loads(whole["certificate.json"])
    parts["digests"]["more"] = None
    content = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    assert "more was changed" in refused_by({**whole, "certificate.json": content}, key)
    for path in sorted(certified.glob("release_*_privacy.json")):
        rewrite(path, software={"a": {"b": "c"}})
    (certified / "certificate.json").unlink()
    make_certificate(certified, key)
    said = refused_by(resigned(contents(certified), key, software=[{"a.b": "c"}]), key)
    assert said.endswith("is not what the files of the folder say.")


@pytest.mark.parametrize("document", ["release_000001_privacy.json", "summary.json"])
def test_a_field_that_no_release_writes_is_not_signed(folder, key, document):
    """It could say anything beside what is checked."""
    rewrite(folder / document, epsilon=0.01)
    with pytest.raises(CertificateError, match=rf"{document}: epsilon is no field"):
        make_certificate(folder, key)


def test_a_table_states_no_number_of_a_set(tmp_path, guarantee, key):
    folder = write_table(tmp_path / "table", guarantee, 2)
    rewrite(folder / "released_privacy.json", set_guarantee={**guarantee.to_dict(), "epsilon": 0.01})
    with pytest.raises(CertificateError, match=r"released_privacy\.json: set_guarantee is no field"):
        make_certificate(folder, key)


@pytest.mark.parametrize(
    ("fact", "label"), [("condition", None), ("attribute 0", None), ("attribute 0", 1), ("attribute 1", [1.0])]
)
def test_releases_whose_public_facts_nobody_can_see_do_not_hide_among_each_other(tmp_path, guarantee, key, fact, label):
    local = replace(guarantee, public=(fact,))
    whole = local.shuffled(50, delta=0.01)
    folder = write_release(tmp_path / "set", local.to_dict(), [label] * 50, whole.to_dict())
    with pytest.raises(CertificateError, match="counts 50 releases that share their public facts; there are 1"):
        make_certificate(folder, key)
    # Where they can be seen, and are the same, the number of the set holds.
    told = write_release(tmp_path / "told", local.to_dict(), [[1.0, 0.0]] * 50, whole.to_dict())
    make_certificate(told, key)
    assert verify_certificate(told, key.public_key()).whole.epsilon < 4


# What a hostile signer may put anywhere: no kind of value is trusted, though its signature is valid.
VALUES = ["nothing of the kind", "a\nsignature that fits", None, True, -1, 10**1000, [], {}, [[1]], {"count": []}]


def test_any_value_in_any_place_of_a_signed_statement_is_refused_in_a_sentence(certified, key):
    whole = contents(certified)
    original = json.loads(whole["certificate.json"])["statement"]
    words = ("signer", "certified_with", "issued")  # the signer's own
    places = {path[:length] for path in paths_to_values(original) for length in range(1, len(path) + 1)}
    for path in sorted(places, key=str):
        for value in VALUES:
            statement = json.loads(json.dumps(original))
            part = statement
            for name in path[:-1]:
                part = part[name]
            if part[path[-1]] == value:
                continue
            part[path[-1]] = value
            said = refused_by({**whole, "certificate.json": signed(statement, key)}, key)
            assert said is not None or (path[0] in words and value != "a\nsignature that fits"), (path, value)
            assert said is None or (said.isprintable() and len(said) < 500)


@pytest.mark.parametrize(
    "make",
    [
        lambda card: card.replace('"epsilon": 4.0', '"epsilon": NaN'),
        lambda card: card.replace('"epsilon": 4.0', '"epsilon": 1' + "0" * 5000),
        lambda card: card.replace('"epsilon": 4.0', '"epsilon": ' + "[" * 100_000),
        lambda card: card.replace('"epsilon": 4.0', '"epsilon": ' + "[" * 200 + "]" * 200),
        lambda card: card + " " * 10**8,
        lambda card: card.replace('"SubsetSelection"', '"Magic"'),
        lambda card: card.replace('"image"', '"hospital"'),
        lambda card: card.replace('"replace-one"', '"add-one"'),
        lambda card: card.replace('"epsilon": 4.0', '"epsilon": 1' + "0" * 400),
    ],
    ids="NaN digits brackets nested large mechanism unit relation huge".split(),
)
def test_a_card_that_says_what_no_release_says_is_not_signed_and_named(tmp_path, guarantee, key, make):
    folder = write_release(tmp_path / "made", guarantee.to_dict(), labels=(0,))
    for name in ("release_000001_privacy.json", "summary.json"):
        (folder / name).write_text(make((folder / name).read_text()))
    with pytest.raises(CertificateError, match=r"release_000001_privacy\.json|summary\.json|guarantees\.0|guarantee "):
        make_certificate(folder, key)


def test_a_certificate_that_is_a_link_or_a_hundred_megabytes_is_refused(certified, key, tmp_path):
    certificate = certified / "certificate.json"
    kept = certificate.read_bytes()
    assert f"has {10**8 + len(kept)} bytes" in refused_by(
        {**contents(certified), "certificate.json": kept + b" " * 10**8}, key
    )
    certificate.rename(tmp_path / "elsewhere.json")
    certificate.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CertificateError, match=r"certificate\.json is missing, a link"):
        verify_certificate(certified, key.public_key())


def test_a_released_file_that_became_a_link_to_the_same_bytes_is_refused(certified, key, tmp_path):
    (certified / "release_000001.png").rename(tmp_path / "elsewhere.png")
    (certified / "release_000001.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(CertificateError, match=r"release_000001\.png is no file, or a link"):
        verify_certificate(certified, key.public_key())


def test_a_name_of_a_file_cannot_write_lines_of_its_own(certified, key):
    (certified / "x\nall is well").write_text("")
    with pytest.raises(CertificateError, match=r"^'x\\nall is well' is not in"):
        verify_certificate(certified, key.public_key())


# --- audits, ledgers, and what verifies -------------------------------------------------------------------------------


def audit(path, contradicted=False):
    row = {"name": "Privatizer", "level": "image", "epsilon": 4.0, "delta": 0.0, "measured": 3.1, "ceiling": 3.9}
    path.write_text(json.dumps({"failure_rate": 1e-6, "audits": [{**row, "contradicted": contradicted}]}))
    return path


def test_an_audit_and_the_head_of_a_ledger_are_stated(folder, key, tmp_path):
    head = {"sequence": 7, "code": "c0de", "signature": "5160"}
    (tmp_path / "head.json").write_text(json.dumps(head))
    made = make_certificate(folder, key, audit=audit(tmp_path / "audit.json"), ledger_head=tmp_path / "head.json")
    assert made.statement["ledger_head"] == head
    assert made.statement["audit"]["audits"][0]["measured"] == "3.1"


def test_nothing_is_signed_where_an_audit_has_contradicted_a_promise(folder, key, tmp_path):
    with pytest.raises(CertificateError, match="contradicted by measurement"):
        make_certificate(folder, key, audit=audit(tmp_path / "audit.json", contradicted=True))


def test_no_path_is_in_a_certificate(certified, tmp_path):
    assert str(tmp_path).encode() not in read_certificate(certified)


def test_a_certificate_is_verified_where_neither_torch_nor_monai_nor_numpy_can_be_imported(certified, key, tmp_path):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = tmp_path / "key.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    moved = shutil.copytree(certified, tmp_path / "elsewhere")
    code = textwrap.dedent(
        """
        import sys
        for name in ("torch", "monai", "numpy", "scipy", "FrEIA", "ignite", "mlflow", "nibabel", "sqlalchemy"):
            sys.modules[name] = None
        from monai_cadp.__main__ import main
        sys.exit(main(["certificate", "verify", *sys.argv[1:]]))
        """
    )
    command = [sys.executable, "-c", code, str(moved), "--public_key", str(public)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "derived epsilon 4" in done.stdout, done.stderr
    (moved / "release_000003.png").write_bytes(b"another image")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "release_000003.png is not the certified file" in done.stderr


PEM = "-----BEGIN {kind} KEY-----\n{text}\n-----END {kind} KEY-----\n"


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("PUBLIC", "MCswBgYEKgMEBQMhAGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr", read_public_key),
        ("PRIVATE", "MC0CAQAwBgYEKgMEBQQga2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", read_private_key),
    ],
)
def test_a_key_of_an_unknown_kind_is_refused_in_a_sentence(tmp_path, kind, text, read):
    path = tmp_path / "key"
    path.write_text(PEM.format(kind=kind, text=text))
    path.chmod(0o600)
    with pytest.raises(CertificateError, match="key could not be read; expected a .*file of 'certificate new-key'"):
        read(path)
