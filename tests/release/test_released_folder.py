# SPDX-License-Identifier: Apache-2.0
"""A released folder holds what was released: no header, name, time or order of the source."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import random
import struct

import nibabel
import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor, load_decathlon_datalist
from monai.transforms import LoadImaged
from PIL import Image

from monai_cadp.data import LabelledVolumes, PublicGrid, ReadLabelledVolume, join_masks, open_images
from monai_cadp.release import ReleasedFolder
from monai_cadp.release.released_folder import software_versions

CANARY = "Mustermann-1954"
GUARANTEE = {"unit": "image", "relation": "replace-one", "epsilon": 8.0, "delta": 0.0, "mechanism": "SubsetSelection"}


def release(folder, images, labels=None, guarantees=None):
    with ReleasedFolder(folder, num_expected=len(images)) as released:
        for index, image in enumerate(images):
            released.write(
                image,
                guarantee=GUARANTEE if guarantees is None else guarantees[index],
                label=None if labels is None else labels[index],
            )
    return folder


def marked(count, shape=(1, 4, 4)):
    """Images whose brightness tells their place in the source."""
    return [torch.full(shape, index / 255) for index in range(count)]


def order(folder):
    """Places in the source in the order of the released numbers."""
    return [int(np.asarray(Image.open(path))[0, 0]) for path in sorted(folder.glob("*.png"))]


def everything(folder):
    """All names and all bytes, packed files unpacked, in one byte string."""
    content = b""
    for path in sorted(folder.rglob("*")):
        content += str(path.relative_to(folder)).encode() + path.read_bytes()
        if path.suffix == ".gz":
            content += gzip.decompress(path.read_bytes())
    return content


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_picture_has_its_values_in_eight_bits(tmp_path):
    image = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    folder = release(tmp_path / "out", [image])
    written = np.asarray(Image.open(folder / "release_000001.png"))
    assert written.dtype == np.uint8 and np.abs(written / 255 - image[0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_color_picture_has_three_channels(tmp_path):
    image = torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 4, 6)
    written = Image.open(release(tmp_path / "out", [image]) / "release_000001.png")
    assert written.mode == "RGB" and written.size == (6, 4) and written.getpixel((0, 0)) == (255, 0, 51)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_volume_has_its_values_and_the_identity_as_affine(tmp_path, channels):
    image = torch.rand(channels, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    written = nibabel.load(release(tmp_path / "out", [image]) / "release_000001.nii.gz")
    expected = image.numpy()[0] if channels == 1 else np.moveaxis(image.numpy(), 0, -1)
    assert np.array_equal(written.get_fdata(dtype=np.float32), expected)
    assert np.array_equal(written.affine, np.eye(4))


def test_values_out_of_range_are_clipped(tmp_path):
    folder = release(tmp_path / "out", [torch.tensor([[[-3.0, 0.0], [1.0, 9.0]]])])
    assert np.asarray(Image.open(folder / "release_000001.png")).tolist() == [[0, 0], [255, 255]]


def test_the_card_states_guarantee_label_shape_and_software_and_no_more(tmp_path):
    folder = release(tmp_path / "out", [torch.zeros(1, 4, 6)], labels=[torch.tensor(3)])
    card = json.loads((folder / "release_000001_privacy.json").read_text())
    assert sorted(card) == ["guarantee", "label", "shape", "software"]
    assert card["guarantee"] == GUARANTEE and card["label"] == 3 and card["shape"] == [1, 4, 6]
    assert sorted(card["software"]) == ["FrEIA", "monai", "monai_cadp", "torch"] and all(card["software"].values())
    assert card["software"]["torch"] == torch.__version__


def test_the_card_states_how_releases_are_drawn_where_it_is_said(tmp_path):
    with ReleasedFolder(tmp_path / "out", num_expected=1, drawing={"refined": True}) as folder:
        folder.write(torch.zeros(1, 4, 6), GUARANTEE)
    assert json.loads((tmp_path / "out" / "release_000001_privacy.json").read_text())["drawing"] == {"refined": True}


@pytest.mark.parametrize("label, written", [(2, 2), (torch.tensor([1.0, 0.5]), [1.0, 0.5]), ([0, 1], [0.0, 1.0])])
def test_class_indices_and_vectors_are_labels(tmp_path, label, written):
    folder = release(tmp_path / "out", [torch.zeros(1, 4, 4)], labels=[label])
    assert json.loads((folder / "release_000001_privacy.json").read_text())["label"] == written


def test_a_label_that_is_not_released_is_nowhere(tmp_path):
    folder = release(tmp_path / "out", [torch.zeros(1, 4, 4)])
    assert "label" not in json.loads((folder / "release_000001_privacy.json").read_text())
    assert "labels" not in json.loads((folder / "summary.json").read_text())
    assert not (folder / "datalist.json").exists()


def test_the_summary_counts_images_guarantees_and_labels(tmp_path):
    other = {**GUARANTEE, "epsilon": 4.0}
    folder = release(
        tmp_path / "out", marked(4), labels=[1, 0, 1, 10], guarantees=[GUARANTEE, other, GUARANTEE, GUARANTEE]
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["count"] == 4 and summary["labels"] == {"0": 1, "1": 2, "10": 1}
    assert summary["guarantees"] == [{"count": 1, "guarantee": other}, {"count": 3, "guarantee": GUARANTEE}]


def test_every_image_has_its_card_under_its_number(tmp_path):
    folder = release(tmp_path / "out", marked(12), labels=list(range(12)))
    names = sorted(path.name for path in folder.iterdir())
    numbers = [f"release_{number:06d}" for number in range(1, 13)]
    of_images = [f"{n}{suffix}" for n in numbers for suffix in (".png", "_privacy.json")]
    assert names == sorted([*of_images, "datalist.json", "summary.json"])
    labels = [json.loads((folder / f"{n}_privacy.json").read_text())["label"] for n in numbers]
    assert labels == order(folder)


@pytest.mark.parametrize("labels", [[2, 0, 1], [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), [1, 1]]])
def test_our_readers_and_monais_read_releases_with_their_labels(tmp_path, labels):
    folder = release(tmp_path / "out", marked(3), labels=labels)
    items = list(open_images(folder / "datalist.json", split="train", spatial_shape=(4, 4)))
    theirs = Dataset(
        load_decathlon_datalist(folder / "datalist.json", is_segmentation=False),
        LoadImaged(keys="image", ensure_channel_first=True),
    )
    assert len(items) == len(theirs) == 3
    for item, other in zip(items, theirs, strict=True):
        place = round(float(item["image"].max() * 255))
        assert float(other["image"].max()) == place
        assert item["label"].tolist() == other["label"] == torch.as_tensor(labels[place]).tolist()


def test_volumes_are_listed_as_files_or_as_folders_of_slices(tmp_path):
    for volume_format, name in (("nifti", "release_000001.nii.gz"), ("dicom", "release_000001")):
        with ReleasedFolder(tmp_path / name, num_expected=1, volume_format=volume_format) as folder:
            folder.write(torch.rand(1, 4, 4, 4), {**GUARANTEE, "unit": "volume"}, label=1)
        listed = json.loads((tmp_path / name / "datalist.json").read_text())
        assert listed == {"training": [{"image": name, "label": 1}]} and (tmp_path / name / name).exists()


def test_images_in_two_dimensions_are_written_as_dicom_where_that_is_asked_for(tmp_path, refused):
    with ReleasedFolder(tmp_path / "out", num_expected=1, image_format="dicom") as folder:
        folder.write(torch.rand(1, 4, 4), GUARANTEE, label=1)
    listed = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert listed == {"training": [{"image": "release_000001.dcm", "label": 1}]}
    images = open_images(tmp_path / "out" / "datalist.json", "train", (4, 4), intensity_range=(0, 255))
    assert images[0]["image"].shape == (1, 4, 4) and images[0]["label"] == 1
    with refused(ValueError, "image_format is 'nifti'"):
        ReleasedFolder(tmp_path / "other", num_expected=1, image_format="nifti")


# --- what is not written ----------------------------------------------------------------------------------------------


def test_nothing_that_a_tensor_carries_reaches_the_files(tmp_path):
    affine = torch.eye(4, dtype=torch.float64) * 1.23456
    meta = {"filename_or_obj": f"/data/{CANARY}.nii.gz", "PatientName": CANARY}
    for shape in ((1, 6, 6), (1, 6, 6, 6)):
        image = MetaTensor(torch.rand(shape), affine=affine, meta=meta)
        image.PatientName = CANARY
        content = everything(release(tmp_path / f"out{len(shape)}", [image, image]))
        assert CANARY.encode() not in content and b"/data" not in content and str(tmp_path).encode() not in content
        assert struct.pack("<f", 1.23456) not in content
    # The scan does find what is there.
    assert b"SubsetSelection" in content


def test_a_picture_file_has_no_chunk_but_the_pixels(tmp_path):
    content = (release(tmp_path / "out", [torch.rand(1, 9, 9)]) / "release_000001.png").read_bytes()
    chunks, position = [], 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        chunks.append(content[position + 4 : position + 8])
        position += 12 + length
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}


def test_a_volume_file_has_no_name_no_time_and_an_empty_header(tmp_path):
    path = release(tmp_path / "out", [torch.rand(1, 4, 4, 4)]) / "release_000001.nii.gz"
    content = path.read_bytes()
    assert content[3] == 0 and content[4:8] == b"\0\0\0\0"  # no optional gzip fields, no time
    header = nibabel.load(path).header
    assert all(bytes(header[key]).strip(b"\0") == b"" for key in ("descrip", "aux_file", "intent_name", "db_name"))
    assert len(header.extensions) == 0


def test_the_same_releases_give_the_same_files_whatever_the_time(tmp_path):
    assert everything(release(tmp_path / "a", [torch.ones(1, 4, 4, 4)])) == everything(
        release(tmp_path / "b", [torch.ones(1, 4, 4, 4)])
    )


# --- the order of the source ------------------------------------------------------------------------------------------


def test_the_order_is_a_fresh_permutation(tmp_path):
    first, second = order(release(tmp_path / "a", marked(40))), order(release(tmp_path / "b", marked(40)))
    assert sorted(first) == sorted(second) == list(range(40))
    # Each of the three fails by chance once in 40! (about 1e48).
    assert first != list(range(40)) and second != list(range(40)) and first != second


def test_no_seed_of_a_library_decides_the_order(tmp_path):
    orders = []
    for name in ("a", "b"):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        orders.append(order(release(tmp_path / name, marked(40))))
    assert orders[0] != orders[1]  # equal by chance once in 40!


def test_every_place_is_as_likely_for_the_first_image(tmp_path):
    counts = np.zeros(3)
    for index in range(150):
        counts[order(release(tmp_path / str(index), marked(3))).index(0)] += 1
    # Binomial(150, 1/3) is 50 +- 5.8; outside 15..90 with probability below 1e-9 for each of the three.
    assert (counts >= 15).all() and (counts <= 90).all()


def test_times_and_places_on_the_disk_follow_the_numbers_not_the_source(tmp_path):
    folder = release(tmp_path / "out", marked(30))
    paths = sorted(folder.iterdir())
    assert len({path.stat().st_mtime_ns for path in paths}) == 1
    changed = [path.stat().st_ctime_ns for path in paths]
    assert changed == sorted(changed)
    # Equal by chance once in 30! (about 1e32).
    pictures = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_ino)
    assert [int(np.asarray(Image.open(path))[0, 0]) for path in pictures] != list(range(30))


# --- volumes with masks -----------------------------------------------------------------------------------------------


def pairs(folder, volumes, **options):
    with ReleasedFolder(folder, num_expected=len(volumes), num_mask_classes=3, **options) as released:
        for volume in volumes:
            released.write(volume, guarantee=GUARANTEE)
    return folder


def test_a_volume_and_its_mask_have_files_of_their_own_on_one_grid(tmp_path):
    masks = torch.randint(3, (2, 1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    volumes = join_masks(torch.rand(2, 1, 4, 5, 6), masks, 3, reach=2.0)
    folder = pairs(tmp_path / "out", list(volumes), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    found = set()
    for number in ("0001", "0002"):
        image, mask = (nibabel.load(folder / part / f"{number}.nii.gz") for part in ("images", "labels"))
        index = int(np.allclose(image.get_fdata(), volumes[1, 0]))
        assert np.allclose(image.get_fdata(), volumes[index, 0]) and np.array_equal(mask.dataobj, masks[index, 0])
        assert np.array_equal(image.affine, mask.affine) and image.affine[0, 0] == 2.0
        assert mask.get_data_dtype() == np.uint8
        found.add(index)
    assert found == {0, 1}
    assert sorted(path.name for path in (folder / "cards").iterdir()) == ["0001_privacy.json", "0002_privacy.json"]


def test_pairs_come_in_random_order(tmp_path):
    orders = set()
    for attempt in range(40):
        volumes = [torch.full((3, 2, 2, 2), index / 10) for index in range(3)]
        folder = pairs(tmp_path / str(attempt), volumes)
        paths = sorted((folder / "images").iterdir())
        orders.add(tuple(round(10 * float(nibabel.load(path).get_fdata().mean())) for path in paths))
    # One of six orders is missed by 40 with a probability of .004.
    assert len(orders) >= 5


def test_as_dicom_a_volume_is_a_series_and_its_mask_a_segmentation_of_it(tmp_path):
    mask = torch.randint(3, (1, 1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    joined = join_masks(torch.rand(1, 1, 4, 5, 6), mask, 3, reach=2.0)
    grid = PublicGrid((4, 5, 6), spacing=2.0)
    folder = pairs(tmp_path / "out", list(joined), affine=grid.affine, volume_format="dicom")
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.dcm"))]
    assert names == [*(f"images/0001/slice_{index:04d}.dcm" for index in range(1, 7)), "labels/0001.dcm"]
    assert json.loads((folder / "datalist.json").read_text()) == {
        "training": [{"image": "images/0001", "mask": "labels/0001.dcm"}]
    }
    assert len({path.stat().st_mtime_ns for path in folder.rglob("*")}) == 1
    for source in (folder, folder / "datalist.json"):
        (item,) = LabelledVolumes(source, ReadLabelledVolume(grid, 3, intensity_range=(0, 4095)))
        assert torch.equal(item["mask"], mask[0]) and (item["image"] - joined[0, :1]).abs().max() < 1e-3


def test_masks_are_not_written_beside_pictures(tmp_path, refused):
    with refused(ValueError, "image with a mask has shape"):
        pairs(tmp_path / "out", [torch.zeros(3, 2, 2)])
    assert not (tmp_path / "out").exists()


def test_software_that_is_not_installed_is_said_to_be_so(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert set(software_versions().values()) == {"not installed as a package"}
