# SPDX-License-Identifier: Apache-2.0
"""Releases are finite images of the shape of the originals, and no two are alike."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ContentBasis
from monai_cadp.privacy import (
    PriorOnly,
)
from tests.release.privatizer.toys import (
    MECHANISMS,
    basis,
    declared,
    images,
)


@pytest.mark.parametrize("name", MECHANISMS)
def test_releases_have_the_shape_of_the_originals_and_are_float32(setting, name):
    inn, condition = setting
    privatizer = Privatizer(inn, MECHANISMS[name](), basis(inn))
    for x in (images(6), images(6).double(), images(6).half(), images(6).transpose(2, 3)):
        released = privatizer(x, condition)
        assert released.shape == x.shape and released.dtype == torch.float32
        assert not released.requires_grad and torch.isfinite(released).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, torch.finfo(torch.float32).max])
@pytest.mark.parametrize("content", ["basis", "declared"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_hostile_images_are_released_as_finite_images(setting, value, content, name):
    inn, condition = setting
    if content == "declared" and name != "SubsetSelection":
        name = "SubsetSelection"
    privatizer = Privatizer(inn, MECHANISMS[name](), basis(inn) if content == "basis" else declared())
    x = images(6)
    x[1] = value
    x[2, :, :2] = value
    x[3, :, 0] = -value
    assert torch.isfinite(privatizer(x, condition)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_latent_that_is_no_number_is_in_the_middle_of_the_prior(setting, monkeypatch, value):
    inn, condition = setting
    seen, encode = [], inn.encode

    def encode_badly(x, condition):
        z, log_det = encode(x, condition)
        z[:, ::2] = value
        return z, log_det

    monkeypatch.setattr(inn, "encode", encode_badly)
    project = ContentBasis.project
    monkeypatch.setattr(ContentBasis, "project", lambda self, z: seen.append(z) or project(self, z))
    Privatizer(inn, PriorOnly(), basis(inn))(images(6), condition)
    assert not seen[0][:, ::2].any() and seen[0][:, 1::2].all()


def test_the_original_is_not_touched(inn):
    x = images(3)
    x[0, 0, 0, 0] = math.nan
    before = x.clone()
    Privatizer(inn, PriorOnly(), basis(inn))(x, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


def test_two_releases_of_one_image_differ(inn):
    for mechanism in MECHANISMS.values():
        privatizer = Privatizer(inn, mechanism(), basis(inn))
        x, condition = images(3), torch.tensor([0, 1, 2])
        assert not torch.equal(privatizer(x, condition), privatizer(x, condition))


def test_no_seed_makes_a_release_repeat_itself(inn):
    privatizer = Privatizer(inn, MECHANISMS["SubsetSelection"](), basis(inn))
    releases = []
    for _ in range(2):
        torch.manual_seed(0)
        releases.append(privatizer(images(3), torch.tensor([0, 1, 2])))
    assert not torch.equal(*releases)
