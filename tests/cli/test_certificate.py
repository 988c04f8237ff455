# SPDX-License-Identifier: Apache-2.0
"""Certificates from the command line."""

from __future__ import annotations

import os

import pytest
import torch
import yaml

from monai_cadp.__main__ import main
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release import ReleasedFolder


@pytest.fixture
def run(tmp_path, capsys):
    """Run a command on the test's folder; returns its exit code and what it printed."""
    mechanism = SubsetSelection(4.0, num_candidates=64).configured(2)
    with ReleasedFolder(tmp_path / "released", num_expected=1) as released:
        released.write(torch.zeros(1, 4, 4), mechanism.guarantee().to_dict())
    assert main(["certificate", "new-key", str(tmp_path / "key")]) == 0

    def command(name, *options):
        given = ["--key", "key"] if name == "make" else ["--public_key", "key.pub"]
        given[1] = str(tmp_path / given[1])
        code = main(["certificate", name, str(tmp_path / "released"), *given, *options])
        return code, capsys.readouterr()

    return command


def test_a_folder_is_signed_and_verified(run):
    assert run("make", "--signer", "A hospital")[0] == 0
    code, printed = run("verify")
    assert code == 0 and "derived epsilon 4 by exact rational arithmetic" in printed.out
    assert "training data unprotected" in printed.out and "no audit is stated" in printed.out


def test_a_changed_file_is_refused_with_code_1_and_named(run, tmp_path):
    run("make")
    (tmp_path / "released" / "release_000001.png").write_bytes(b"")
    code, printed = run("verify")
    assert code == 1 and printed.err.startswith("refused: release_000001.png is not the certified file")


def test_the_key_is_its_owners_alone_and_one_that_others_can_read_is_refused(run, tmp_path):
    assert os.stat(tmp_path / "key").st_mode & 0o777 == 0o600
    (tmp_path / "key").chmod(0o644)
    code, printed = run("make")
    assert code == 2 and "may be read or written by others" in printed.err
    assert not (tmp_path / "released" / "certificate.json").exists()


def test_a_key_is_not_overwritten(run, tmp_path, capsys):
    before = (tmp_path / "key").read_bytes()
    assert main(["certificate", "new-key", str(tmp_path / "key")]) == 2
    assert (tmp_path / "key").read_bytes() == before


def test_a_page_has_what_was_found_and_lies_outside_of_the_folder(run, tmp_path):
    run("make", "--signer", "<A hospital>")
    assert run("page", "--out", str(tmp_path / "page.html"))[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert "&lt;A hospital&gt;" in page and "derived epsilon 4" in page and "<script" not in page
    assert run("page", "--out", str(tmp_path / "released" / "page.html"))[0] == 2
    assert run("verify")[0] == 0


REGISTRY = {
    "basic": {"name", "data_curators", "description", "intended_use", "data_product_type", "data_product_region"},
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {"privacy_unit", "privacy_unit_details", "privacy_parameters", "privacy_parameters_details"},
    "deployment_model": {"model_name", "actors", "release_type", "data_source_type", "access_type"},
    "accounting": {"post_processing", "composition"},
    "implementation": {"preprocessing_and_hyperparameter_tuning", "mechanisms", "justification"},
    "administrative": {"registry_authors"},
}


def test_a_record_of_the_registry_has_the_fields_of_tier_3(run, tmp_path):
    run("make", "--signer", "A hospital")
    (tmp_path / "about.yaml").write_text("name: Chest films\nregistry_authors: [Somebody]\n")
    code, printed = run("registry", "--about", str(tmp_path / "about.yaml"))
    record = yaml.safe_load(printed.out)
    assert code == 0 and record["tier"] == 3 and record["status"] == "Draft"
    assert all(fields <= set(record["deployment"][part]) for part, fields in REGISTRY.items())
    assert record["deployment"]["privacy_loss"]["privacy_parameters"] == {"epsilon": 4.0}
    assert record["deployment"]["basic"]["name"] == "Chest films"
    assert isinstance(record["deployment"]["basic"]["publication_date"], str)
