# SPDX-License-Identifier: Apache-2.0
"""A batch that is killed ends with every patient released and stored once; an original that was sent would be found."""

from __future__ import annotations

import pytest

from benchmarks import dicomweb_batch

pytestmark = pytest.mark.slow


def test_a_batch_ends_as_if_nothing_had_been_killed_and_an_original_would_be_found(
    start_archive, tmp_path, monkeypatch
):
    monkeypatch.setattr(dicomweb_batch, "KILLS", {"fetches": 1, "stores": 1})
    monkeypatch.setattr(dicomweb_batch, "SERVER_KILLS", {"stores": 1})
    with dicomweb_batch.started(20, tmp_path) as (batch, canaries):
        dicomweb_batch.run(batch)
        found = dicomweb_batch.found(batch, canaries)
        assert [row["end"] for row in batch.rows].count("killed") == found["kills of the command"] == 2
        assert found["kills of a server"] == 1
        every = ("objects stored", "objects that differ", "objects as the release has written them")
        every += ("releases in the ledger", "patients who spent the budget of one release")
        assert [found[name] for name in every] == [20] * len(every)
        assert found["problems of the ledger"] == 0
        assert found["canaries in what was sent, said or stored"] == 0
        assert found["canaries in the originals"] == found["canaries"] > 5 * 20
        # The negative control: a film of the hospital among what was sent.
        batch.target.requests.append(("POST", "/", {}, (tmp_path / "films" / "7.dcm").read_bytes()))
        assert dicomweb_batch.found(batch, canaries)["canaries in what was sent, said or stored"] >= 5
