# SPDX-License-Identifier: Apache-2.0
"""DICOMweb: connections are checked, errors quote nobody, series come whole, and nothing but releases is stored."""

from __future__ import annotations

import datetime
import io
import ipaddress
import json
import logging
import os
import ssl
import traceback

import numpy as np
import pydicom
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydicom.uid import generate_uid

from benchmarks.archives import Front, answering
from monai_cadp.data import ImageList, PublicGrid, ReadVolume, VolumeFiles, dicomweb_server
from monai_cadp.data.dicomweb_fetch import fetch_series
from monai_cadp.data.dicomweb_server import DicomWebError, DicomWebQuery, DicomWebServer
from monai_cadp.data.dicomweb_store import store_release
from monai_cadp.privacy import PrivacyGuarantee
from monai_cadp.release import ReleasedFolder

CANARY = "Mustermann-1954"
GUARANTEE = PrivacyGuarantee(epsilon=4.0, mechanism="SubsetSelection").to_dict()
FOUND = [{"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "0020000E": {"vr": "UI", "Value": ["1.2.3.4"]}}]
QUERY = DicomWebQuery("", filters={"PatientID": CANARY})


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(dicomweb_server, "FIRST_WAIT", 0)


def says(*answers):
    """A server that gives these answers in turn, then the last one for ever, and keeps what it was asked."""
    asked = []

    def answer(*request):
        asked.append(request)
        status, content, *headers = answers[min(len(asked), len(answers)) - 1]
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return status, {"Content-Type": "application/dicom+json"} | (headers[0] if headers else {}), body

    return answer, asked


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("https://a/dw/series?Modality=MR", DicomWebQuery("https://a/dw", filters={"Modality": "MR"})),
        ("https://a/studies?00080061=DX", DicomWebQuery("https://a", by_study=True, filters={"00080061": "DX"})),
        ("https://a:1/b/c/studies/1.2", DicomWebQuery("https://a:1/b/c", study="1.2")),
        ("https://a/studies/1.2/series?Modality=MR", DicomWebQuery("https://a", "1.2", filters={"Modality": "MR"})),
        ("https://a/studies/1.2/series/3.4/", DicomWebQuery("https://a", "1.2", "3.4")),
    ],
)
def test_a_query_is_an_address_of_studies_or_series(url, query):
    assert DicomWebQuery.parse(url) == query


@pytest.mark.parametrize(
    ("url", "match"),
    [
        (f"https://a/dw?PatientID={CANARY}", "names no studies"),
        (f"https://a/studies/{CANARY}", "names no studies"),
        ("https://a/studies/..", "names no studies"),
        (f"https://a/studies?{CANARY}=1", "no attribute of DICOM"),
        ("https://a/studies?limit=5", "no attribute of DICOM"),
        ("https://a/studies?Modality=MR&Modality=CT", "no attribute of DICOM"),
        ("https://a/studies/1.2?Modality=MR", "leave one of the two out"),
        (f"https://{CANARY}:secret@a/studies", "holds a user's name or password"),
        (f"http://a.org/{CANARY}/studies", "is not encrypted"),
        ("http://127.0.0.1.evil.org/studies", "is not encrypted"),
        (f"file:///{CANARY}/studies", "cannot be used"),
        ("https://a:port/studies", "cannot be used"),
        (f"https://a/studies#{CANARY}", "cannot be used"),
        (f"https://a/studies\nX-{CANARY}: 1", "cannot be used"),
    ],
)
def test_any_other_address_is_refused_and_not_repeated(url, match, refused):
    with pytest.raises(ValueError) as caught:
        DicomWebQuery.parse(url)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    with refused(ValueError, match):
        raise caught.value


def test_this_machine_alone_is_asked_without_encryption(refused):
    for address in ("http://127.0.0.1:1/dw", "http://[::1]/dw", "http://localhost/dw", "https://pacs.org/dw"):
        DicomWebServer(address)
    for address in ("http://10.0.0.1/dw", "http://pacs.org/dw"):
        with refused(ValueError, "is not encrypted"):
            DicomWebServer(address)


# --- the token and the certificate ------------------------------------------------------------------------------------


def test_the_token_is_sent_and_neither_a_password_nor_a_proxy_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret-token\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    answer, asked = says((200, FOUND))
    with answering(answer) as address:
        assert DicomWebServer(address, tmp_path / "token", retries=0).find(QUERY) == [("1.2.3", "1.2.3.4")]
        assert DicomWebServer(address, retries=0).find(QUERY) == [("1.2.3", "1.2.3.4")]
    assert {headers.get("Authorization") for _, _, headers, _ in asked} == {"Bearer secret-token", None}
    assert {headers["Host"] for _, _, headers, _ in asked} == {address.removeprefix("http://")}


@pytest.mark.parametrize(
    ("content", "mode", "match"),
    [("token", 0o640, "read or written by others"), ("", 0o600, "holds none"), ("a\nb", 0o600, "holds none")],
)
def test_a_token_that_others_can_read_or_that_is_none_is_refused(tmp_path, refused, content, mode, match):
    (tmp_path / "token").write_text(content)
    (tmp_path / "token").chmod(mode)
    with refused(ValueError, match):
        DicomWebServer("https://a", tmp_path / "token")
    with refused(ValueError, "is missing"):
        DicomWebServer("https://a", tmp_path / "nothing")


def certificates(folder, name):
    """Write an authority, and a server's certificate and key of it."""
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)

    def made(subject, key, issuer, issuer_key, *extensions):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day)
        builder = builder.not_valid_after(now + day)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(issuer_key, hashes.SHA256())

    key, authority_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    server = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    usage = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    signs = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage)
    authority = made(
        subject, authority_key, subject, authority_key, x509.BasicConstraints(ca=True, path_length=None), signs
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = made(server, key, subject, authority_key, names)
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(authority.public_bytes(pem))
    (folder / f"{name}-server.pem").write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}-server.pem")
    return context


def test_the_certificate_of_a_server_is_checked(tmp_path, refused):
    context = certificates(tmp_path, "right")
    certificates(tmp_path, "wrong")
    answer, asked = says((200, FOUND))
    with answering(answer, context) as address:
        assert DicomWebServer(address, ca_file=tmp_path / "right.pem").find(QUERY)
        count = len(asked)
        for ca_file in (tmp_path / "wrong.pem", None):
            with refused(DicomWebError, "has a certificate that is not trusted"):
                DicomWebServer(address, ca_file=ca_file).find(QUERY)
        assert len(asked) == count
    with refused(ValueError, "certificate authorities is missing"):
        DicomWebServer(address, ca_file=tmp_path / "nothing.pem")


# --- patience and silence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status):
    answer, asked = says((status, {}), (status, {}), (200, FOUND), (200, []))
    with answering(answer) as address:
        assert DicomWebServer(address, retries=2).find(QUERY) == [("1.2.3", "1.2.3.4")]
    assert len(asked) == 4


def test_an_answer_that_breaks_off_is_asked_for_again():
    whole = json.dumps(FOUND).encode()
    broken = (200, whole[:20], {"Content-Length": str(len(whole))})
    answer, asked = says(broken, broken, (200, FOUND), (200, []))
    with answering(answer) as address:
        assert DicomWebServer(address, retries=2).find(QUERY) == [("1.2.3", "1.2.3.4")]
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ((400, CANARY), "answered with status 400"),
        ((401, CANARY), "status 401; check the token"),
        ((404, CANARY), "answered with status 404"),
        ((302, CANARY, {"Location": f"http://127.0.0.1:1/{CANARY}"}), "sends to another address"),
        ((200, CANARY.encode()), "in another form than DICOMweb"),
        ((200, [{"0020000D": {"Value": [CANARY]}, "0020000E": {"Value": [CANARY]}}]), "in another form"),
        ((200, [{"0020000D": {"Value": ["../.."]}, "0020000E": {"Value": ["1"]}}]), "in another form"),
    ],
)
def test_what_a_server_refuses_is_asked_once_and_its_words_are_not_repeated(answer, match, refused, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    answer, asked = says(answer)
    with answering(answer) as address, pytest.raises(DicomWebError, match=match) as caught:
        DicomWebServer(address).find(QUERY)
    assert len(asked) == 1 and CANARY in asked[0][1]
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert CANARY not in shown
    with refused(DicomWebError, match):
        raise caught.value


def test_a_server_that_stays_away_is_named_by_its_host_alone(refused, caplog):
    with answering(says((200, []))[0]) as address:
        pass
    caplog.set_level(logging.DEBUG)
    with refused(DicomWebError, f"server {address.removeprefix('http://')} could not be reached"):
        DicomWebServer(f"{address}/{CANARY}", retries=2).find(QUERY)
    assert not caplog.records


def test_pages_are_asked_for_until_nothing_new_comes():
    def entry(number):
        return {"00080018": {"vr": "UI", "Value": [f"1.2.{number}"]}}

    answer, asked = says((200, [entry(1), entry(2)]), (200, [entry(3)]), (200, []))
    with answering(answer) as address:
        assert DicomWebServer(address).instances("1", "2") == ["1.2.1", "1.2.2", "1.2.3"]
    assert [request[1].partition("offset=")[2] for request in asked] == ["0", "2", "3"]
    answer, asked = says((200, [entry(1)]))
    with answering(answer) as address:
        assert DicomWebServer(address).instances("1", "2") == ["1.2.1"]


# --- fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(start_archive):
    return start_archive()


@pytest.fixture(scope="module")
def hospital(archive, tmp_path_factory, files):
    """An archive with two series of one patient and a film of another one."""
    folder = tmp_path_factory.mktemp("hospital")
    volume = np.random.default_rng(0).integers(0, 900, (6, 7, 5)).astype(np.int16)
    for index, patient in enumerate((CANARY, CANARY, f"{CANARY}-2")):
        part = folder / str(index)
        files.series(part, volume[:, :, : 1 if index == 2 else 5], pixel_spacing=2.0, step=2.0)
        study = generate_uid()
        for path in part.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID, dataset.StudyInstanceUID, dataset.Modality = patient, study, ("MR", "MR", "DX")[index]
            dataset.save_as(path)
    archive.store(folder)
    return archive


def mr(hospital):
    return DicomWebQuery.parse(f"{hospital.dicomweb}/series?Modality=MR")


@pytest.mark.slow
def test_series_are_fetched_whole_for_their_owner_alone_and_once(hospital, tmp_path):
    front = Front(hospital)
    folder = tmp_path / "originals"
    with answering(front) as address:
        server = DicomWebServer(f"{address}/dicom-web")
        fetched = fetch_series(server, mr(hospital), folder)
        assert (fetched.num_new, fetched.num_series, fetched.num_images, fetched.num_nameless) == (2, 2, 10, 0)
        count = sum("/instances/" in path for _, path, *_ in front.requests)
        assert count == 10
        # The other series, beside what is there.
        query = DicomWebQuery.parse(f"{hospital.dicomweb}/studies?PatientName=*")
        fetched = fetch_series(server, query, folder)
        assert (fetched.num_new, fetched.num_series, fetched.num_images) == (1, 3, 11)
        assert sum("/instances/" in path for _, path, *_ in front.requests) == count + 1
    entries = [folder, *folder.rglob("*")]
    assert all(path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600) for path in entries)
    assert not any(CANARY in str(path) for path in entries)


@pytest.mark.slow
def test_what_was_fetched_is_input_of_the_readers_with_its_patients(hospital, tmp_path):
    server = DicomWebServer(hospital.dicomweb)
    folder = tmp_path / "originals"
    fetch_series(server, mr(hospital), folder)
    grid = PublicGrid((6, 7, 5), spacing=2.0)
    scans = VolumeFiles(folder, ReadVolume(grid), subjects=folder / "subjects.csv")
    assert len(scans) == 2 and {scan["subject"] for scan in scans} == {CANARY}
    images = ImageList(folder / "datalist.json", (6, 7), intensity_range=(0, 900), datalist_key="test")
    assert len(images) == 10 and {image["subject"] for image in images} == {CANARY}


@pytest.mark.slow
def test_a_series_of_which_an_instance_does_not_come_is_not_there(hospital, tmp_path, refused):
    front, count = Front(hospital), []

    def once(method, path, headers, body):
        count.append("/instances/" in path)
        return (500, {}, CANARY.encode()) if sum(count) == 3 and count[-1] else front(method, path, headers, body)

    folder = tmp_path / "originals"
    with answering(once) as address:
        server = DicomWebServer(f"{address}/dicom-web", retries=0)
        with refused(DicomWebError, "answered with status 500"):
            fetch_series(server, mr(hospital), folder)
        assert not [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        # What a killed process leaves of a file that it was writing.
        (part,) = folder.glob(".*.part")
        (part / ".a.dcm.0123.tmp").write_bytes(b"half")
        before = sum(count)
        assert fetch_series(server, mr(hospital), folder).num_new == 2
        assert sum(count) - before == 8
    assert not list(folder.rglob("*.tmp")) and not list(folder.glob("*.part"))
    assert {len(list(path.iterdir())) for path in folder.iterdir() if path.is_dir()} == {5}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "number", "last"), [("fetch", 11, 1), ("store", 12, 4)])
def test_an_archive_that_is_killed_and_started_again_is_asked_for_the_rest(
    hospital, start_archive, tmp_path, refused, task, number, last
):
    archive = hospital if task == "fetch" else start_archive()
    originals, released = tmp_path / "originals", release(tmp_path / "released", (1, 4, 4, 4))
    front = Front(archive)
    with answering(front) as address:
        server = DicomWebServer(f"{address}/dicom-web", retries=0)

        def call():
            return fetch_series(server, mr(hospital), originals) if task == "fetch" else store_release(server, released)

        for at, after in ((1, False), (7, True), (9, False)):
            front.arm(at, archive.kill, after)
            with refused(DicomWebError, "answered with status 502"):
                call()
            archive.start()
        front.arm(None)
        assert call().num_new == last
    assert len(archive.files()) == number and len(list(originals.glob("*/*.dcm"))) == (10 if task == "fetch" else 0)
    assert task == "fetch" or sorted(archive.files()) == sorted(path.read_bytes() for path in released.rglob("*.dcm"))


def test_a_folder_that_others_can_look_into_is_refused_before_anything_is_asked(tmp_path, refused):
    answer, asked = says((200, FOUND))
    with answering(answer) as address:
        server = DicomWebServer(address)
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o750)
        with refused(ValueError, "may be looked into by others"):
            fetch_series(server, QUERY, tmp_path / "open")
        (tmp_path / "used").mkdir(mode=0o700)
        (tmp_path / "used" / ".notes.tmp").write_text("")
        with refused(ValueError, "holds something else"):
            fetch_series(server, QUERY, tmp_path / "used")
        assert (tmp_path / "used" / ".notes.tmp").exists()
        (tmp_path / CANARY).write_text("")
        with refused(ValueError, "could not be written"):
            fetch_series(server, QUERY, tmp_path / CANARY)
    assert not asked


@pytest.mark.slow
def test_a_series_of_several_patients_is_refused(start_archive, tmp_path, refused, files):
    archive, scans = start_archive(), tmp_path / "scans"
    files.series(scans, np.zeros((4, 4, 3), dtype=np.int16))
    reencoded(next(scans.iterdir()), lambda dataset: setattr(dataset, "PatientID", CANARY))
    archive.store(scans)
    query = DicomWebQuery.parse(f"{archive.dicomweb}/series")
    with refused(ValueError, "names several patients"):
        fetch_series(DicomWebServer(archive.dicomweb), query, tmp_path / "originals")


def test_a_query_says_nothing_of_itself():
    assert CANARY not in f"{QUERY!r} {QUERY}"


def test_a_query_that_finds_nothing_says_so(tmp_path, refused):
    with answering(says((200, []))[0]) as address, refused(ValueError, "finds no series"):
        fetch_series(DicomWebServer(address), QUERY, tmp_path / "originals")


def test_another_object_than_the_one_that_was_asked_for_is_refused(tmp_path, refused, files):
    other = files.dicom(tmp_path / "other.dcm").read_bytes()
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + other + b"\r\n--b--"
    multipart = {"Content-Type": "multipart/related; type=application/dicom; boundary=b"}
    with answering(says((200, part, multipart))[0]) as address, refused(DicomWebError, "in another form"):
        DicomWebServer(address).retrieve("1.2", "3.4", "5.6")


# --- storing ----------------------------------------------------------------------------------------------------------


def release(folder, shape=(1, 6, 6), count=3, num_mask_classes=None):
    formats = {"volume_format": "dicom", "image_format": "dicom", "num_mask_classes": num_mask_classes}
    with ReleasedFolder(folder, num_expected=count, **formats) as released:
        for _ in range(count):
            released.write(torch.rand(shape), GUARANTEE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "classes", "number"),
    [((1, 6, 6), None, 3), ((3, 5, 5), None, 3), ((1, 4, 4, 4), None, 12), ((4, 4, 5, 4), 4, 15)],
    ids=["grey", "colour", "volumes", "volumes with masks"],
)
def test_released_objects_are_stored_byte_for_byte_and_once(start_archive, tmp_path, shape, classes, number):
    archive, folder = start_archive(), release(tmp_path / "released", shape, num_mask_classes=classes)
    server = DicomWebServer(archive.dicomweb)
    assert store_release(server, folder).num_new == number
    stored = store_release(server, folder)
    assert (stored.num_objects, stored.num_new) == (number, 0)
    assert sorted(archive.files()) == sorted(path.read_bytes() for path in folder.rglob("*.dcm"))


@pytest.mark.slow
def test_a_series_and_its_segmentation_are_sent_once_each_whoever_is_killed(start_archive, tmp_path, refused):
    archive, folder = start_archive(), release(tmp_path / "released", (3, 4, 4, 3), 2, num_mask_classes=3)
    front = Front(archive)
    with answering(front) as address:
        server = DicomWebServer(f"{address}/dicom-web", retries=0)
        # In the first series, at the first segmentation, and after it.
        for at, after in ((3, True), (6, False), (5, True)):
            front.arm(at, archive.kill, after)
            with refused(DicomWebError, "answered with status 502"):
                store_release(server, folder)
            archive.start()
        front.arm(None)
        assert store_release(server, folder).num_objects == 8
    assert sorted(archive.files()) == sorted(path.read_bytes() for path in folder.rglob("*.dcm"))
    headers = [pydicom.dcmread(io.BytesIO(content)) for content in archive.files()]
    slices = {header.SOPInstanceUID: header for header in headers if header.Modality == "MR"}
    masks = [header for header in headers if header.Modality == "SEG"]
    referenced = [one.ReferencedSOPInstanceUID for mask in masks for one in mask.SourceImageSequence]
    assert len(masks) == 2 and sorted(referenced) == sorted(slices)
    assert len({header.PatientID for header in headers}) == len({mask.PatientID for mask in masks}) == 2


def reencoded(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def burn_in(dataset):
    """An original's header around a release's name."""
    dataset.PatientName = CANARY


@pytest.mark.parametrize(
    "change",
    [
        burn_in,
        lambda dataset: setattr(dataset, "SyntheticData", "NO"),
        lambda dataset: delattr(dataset, "SyntheticData"),
        lambda dataset: setattr(dataset, "PatientID", CANARY[:16]),
        lambda dataset: setattr(dataset, "StudyInstanceUID", "1.2.3"),
        lambda dataset: setattr(dataset, "InstitutionName", CANARY),
        lambda dataset: dataset.add_new(0x00091001, "LO", CANARY),
        lambda dataset: setattr(dataset.file_meta, "SourceApplicationEntityTitle", CANARY),
        lambda dataset: setattr(dataset, "preamble", CANARY.encode().ljust(128)),
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + CANARY.encode() + b" "),
        lambda dataset: setattr(dataset, "DeidentificationMethod", ["epsilon 1, delta 0"]),
    ],
)
@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 4, 4, 4)])
def test_a_file_that_is_not_one_of_a_release_is_refused_and_nothing_is_sent(tmp_path, refused, change, shape):
    folder = release(tmp_path / "released", shape)
    path = sorted(folder.rglob("*.dcm"))[-1]
    written = path.read_bytes()
    # Read and written again, it is the same; what follows is due to the change alone.
    reencoded(path, lambda dataset: None)
    assert path.read_bytes() == written
    reencoded(path, change)
    answer, asked = says((200, []))
    with answering(answer) as address, refused(ValueError, "not one that a release has written"):
        store_release(DicomWebServer(address), folder)
    assert not asked


def in_the_mask(change):
    """Which changes the first slice or segment that a segmentation says something of."""

    def changed(dataset):
        change(dataset.PerFrameFunctionalGroupsSequence[0], dataset.SegmentSequence[0])

    return changed


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        burn_in,
        lambda dataset: setattr(dataset, "SyntheticData", "NO"),
        lambda dataset: setattr(dataset, "PatientID", CANARY[:16]),
        lambda dataset: setattr(dataset, "SeriesInstanceUID", "1.2.3"),
        lambda dataset: setattr(dataset, "InstitutionName", CANARY),
        lambda dataset: dataset.add_new(0x00091001, "LO", CANARY),
        lambda dataset: setattr(dataset, "ContentDate", "20210704"),
        lambda dataset: setattr(dataset, "DeidentificationMethod", ["epsilon 1, delta 0"]),
        lambda dataset: setattr(dataset.DimensionOrganizationSequence[0], "DimensionOrganizationUID", "1.2.3"),
        lambda dataset: setattr(dataset.SourceImageSequence[0], "ReferencedSOPInstanceUID", "2.25.1"),
        lambda dataset: setattr(dataset.file_meta, "ImplementationVersionName", CANARY[:16]),
        lambda dataset: setattr(dataset, "preamble", CANARY.encode().ljust(128)),
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + CANARY.encode() + b" "),
        in_the_mask(lambda frame, segment: setattr(segment, "SegmentLabel", CANARY)),
        in_the_mask(lambda frame, segment: setattr(segment, "TrackingID", CANARY)),
        in_the_mask(lambda frame, segment: setattr(frame.PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 9])),
        in_the_mask(lambda frame, segment: setattr(frame, "FrameContentSequence", [pydicom.Dataset()])),
    ],
)
def test_a_segmentation_that_is_not_one_of_a_release_is_refused_and_nothing_is_sent(tmp_path, refused, change):
    folder = release(tmp_path / "released", (3, 4, 4, 3), num_mask_classes=3)
    path = folder / "labels" / "0002.dcm"
    written = path.read_bytes()
    reencoded(path, lambda dataset: None)
    assert path.read_bytes() == written
    reencoded(path, change)
    assert path.read_bytes() != written
    answer, asked = says((200, []))
    with answering(answer) as address, refused(ValueError, "no segmentation of the series that it lies beside"):
        store_release(DicomWebServer(address), folder)
    assert not asked


@pytest.mark.slow
def test_a_segmentation_of_which_one_byte_was_changed_is_refused(tmp_path, refused):
    folder = release(tmp_path / "released", (2, 4, 4, 2), 1, num_mask_classes=2)
    path = folder / "labels" / "0001.dcm"
    written = path.read_bytes()
    # But for what is random, and only there: the name of its series, and the bits that come last, 2 x 16 of them.
    uid = str(pydicom.dcmread(path).SeriesInstanceUID).encode()
    free = range(written.index(uid), written.index(uid) + len(uid))
    places = [place for place in range(0, len(written) - 4, 41) if place not in free]
    answer, asked = says((200, []))
    with answering(answer) as address:
        for place in places:
            path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
            with refused(ValueError, "no segmentation of the series that it lies beside"):
                store_release(DicomWebServer(address), folder)
    assert not asked and len(places) > 80


def test_segmentations_of_another_release_are_refused(tmp_path, refused):
    answer, asked = says((200, []))
    with answering(answer) as address:
        server = DicomWebServer(address)

        def made(name):
            folder = release(tmp_path / name, (3, 4, 4, 3), 2, num_mask_classes=3)
            return folder, folder / "labels" / "0001.dcm", folder / "labels" / "0002.dcm"

        folder, one, other = made("swapped")
        one.rename(folder / "kept"), other.rename(one), (folder / "kept").rename(other)
        with refused(ValueError, "no segmentation of the series that it lies beside"):
            store_release(server, folder)
        folder, one, other = made("of an image that is not there")
        (folder / "labels" / "0003.dcm").write_bytes(one.read_bytes())
        with refused(ValueError, "not as a release has written it"):
            store_release(server, folder)
        folder, one, other = made("two of a series")
        one.rename(folder / "kept"), one.mkdir(), (folder / "kept").rename(one / "one.dcm")
        with refused(ValueError, "not as a release has written it|no segmentation of the series"):
            store_release(server, folder)
        folder, one, other = made("without a slice")
        (folder / "images" / "0001" / "slice_0003.dcm").unlink()
        with refused(ValueError, "a file is missing, or none of its own"):
            store_release(server, folder)
    assert not asked


def test_an_original_among_releases_is_refused_whatever_it_is_called(tmp_path, refused, files):
    answer, asked = says((200, []))
    with answering(answer) as address:
        server = DicomWebServer(address)
        for name in (f"{CANARY}.dcm", "release_000009.dcm", "release_000001/slice_0001.dcm", "release_000001.dcm"):
            folder = release(tmp_path / f"released-{len(name)}-{'9' in name}")
            (folder / name).parent.mkdir(exist_ok=True)
            files.dicom(folder / name)
            with refused(ValueError, "not as a release has written it|not one that a release has written"):
                store_release(server, folder)
        folder = release(tmp_path / "linked")
        target = folder / "release_000001.dcm"
        target.rename(tmp_path / "elsewhere.dcm")
        os.symlink(tmp_path / "elsewhere.dcm", target)
        with refused(ValueError, "not as a release has written it"):
            store_release(server, folder)
    assert not asked


def test_a_release_without_a_card_or_a_guarantee_is_refused(tmp_path, refused):
    server = DicomWebServer("http://127.0.0.1:1")
    folder = release(tmp_path / "a")
    (folder / "release_000001_privacy.json").unlink()
    with refused(ValueError, "not as a release has written it"):
        store_release(server, folder)
    with ReleasedFolder(tmp_path / "b", num_expected=1, image_format="dicom") as released:
        released.write(torch.rand(1, 6, 6), {"epsilon": 4.0, "delta": 0.0})
    with refused(ValueError, "not one that a release has written"):
        store_release(server, tmp_path / "b")
    with ReleasedFolder(tmp_path / "c", num_expected=1) as released:
        released.write(torch.rand(1, 6, 6), GUARANTEE)
    with refused(ValueError, "holds no DICOM"):
        store_release(server, tmp_path / "c")
    with refused(ValueError, "not as a release has written it"):
        store_release(server, tmp_path / CANARY)


def test_an_object_that_a_server_does_not_keep_is_an_error(tmp_path, refused):
    folder = release(tmp_path / "released")
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
    for status, said, match in (
        (202, failed, "did not store"),
        (409, failed, "status 409"),
        (200, {}, "did not store"),
    ):

        def answer(method, *_, status=status, said=said):
            kind = {"Content-Type": "application/dicom+json"}
            return (200, kind, b"[]") if method == "GET" else (status, kind, json.dumps(said).encode())

        with answering(answer) as address, refused(DicomWebError, match):
            store_release(DicomWebServer(address), folder)
