# SPDX-License-Identifier: Apache-2.0
"""A DICOMweb server: asked over a connection that is checked, patiently, and never quoted."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

import requests
import urllib3
from dicomweb_client.web import DICOMwebClient
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from monai_cadp.data.silence import silenced
from monai_cadp.privacy.private_files import check_private

__all__ = ["DicomWebError", "DicomWebQuery", "DicomWebServer"]

Result = TypeVar("Result")
# Seconds until a connection stands, and until the next bytes of an answer come.
TIMEOUT = (10, 120)
# Seconds before the second repetition, doubled before each further one.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# Of a server that is starting, restarting or busy.
PASSING = (429, 500, 502, 503, 504)
TO_AUTHORISE, UNKNOWN, NOT_ACCEPTABLE = (401, 403), 404, 406
# No connection, or one that broke off.
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
# What a request holds is sent as a whole, never piece by piece: pieces cannot be sent again.
NEVER_IN_PIECES = 2**40
UID = re.compile(r"(?=[0-9.]{1,64}\Z)[0-9]+(?:\.[0-9]+)*")
RESOURCE = re.compile(r"(.*?)/(?:studies(?:/([0-9.]+)(?:/series(?:/([0-9.]+))?)?)?|series)/?")
TAG = re.compile(r"[0-9A-Fa-f]{8}")
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
# Plain, as every reader takes it.
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


class DicomWebError(Exception):
    """A server could not be asked, or said no: names its host and a status, and nothing else that was sent or came.

    Args:
        message: a sentence.
        status: with which the server has answered; None where it has not.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, repr=False)
class DicomWebQuery:
    """Which series of a server are meant, by an address of QIDO-RS or WADO-RS.

    Examples are ``https://pacs/dicom-web/studies?ModalitiesInStudy=DX``, ``https://pacs/dicom-web/series?Modality=MR``,
    ``https://pacs/dicom-web/studies/1.2.3`` and ``https://pacs/dicom-web/studies/1.2.3/series/4.5.6``.

    Args:
        address: of the service, up to the part ``/studies`` or ``/series``.
        study: UID of the only study; None for all.
        series: UID of the only series of that study; None for all.
        by_study: whether the filters are for studies, all series of which are meant; otherwise for series.
        filters: values by keyword or tag of the attribute.
    """

    address: str
    study: str | None = None
    series: str | None = None
    by_study: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> DicomWebQuery:
        """Return the query that an address states.

        Raises:
            ValueError: if it is none; the error repeats nothing of it.

        Example:
            >>> DicomWebQuery.parse("https://pacs/dicom-web/series?Modality=MR").filters
            {'Modality': 'MR'}
        """
        parts = _split(url)
        match = RESOURCE.fullmatch(parts.path)
        if match is None or not all(UID.fullmatch(uid) for uid in match.groups()[1:] if uid is not None):
            raise ValueError(
                "The query names no studies and no series; expected the address of a DICOMweb service and then, for "
                "instance, series?Modality=MR."
            )
        base, study, series = match.groups()
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        filters = dict(pairs)
        unknown = [name for name in filters if not TAG.fullmatch(name) and tag_for_keyword(name) is None]
        if len(filters) < len(pairs) or unknown:
            raise ValueError(
                "The query filters by something that is no attribute of DICOM, or by one twice; expected keywords or "
                "tags, such as Modality=MR; limit and offset are not for it."
            )
        by_study = parts.path.rstrip("/").endswith("/studies")
        if filters and (series is not None or (study is not None and "/series" not in parts.path[len(base) :])):
            raise ValueError("The query names a study or a series, and filters it; leave one of the two out.")
        return cls(f"{parts.scheme}://{parts.netloc}{base}", study, series, by_study, filters)

    def __repr__(self) -> str:
        # It may name somebody, and errors and logs show objects by their repr.
        return "DicomWebQuery(...)"


class DicomWebServer:
    """A DICOMweb service: QIDO-RS to search, WADO-RS to retrieve, STOW-RS to store.

    The connection is encrypted and the server's certificate is checked; only this machine itself is asked without.
    What fails by itself (no connection, one that breaks off, a busy or starting server) is asked again, with growing
    waits; what a server refuses is not. Nobody is followed to another address, and neither proxies nor passwords are
    taken from the environment. Of what is sent and what comes nothing gets into a log, a warning or an error.

    Args:
        address: of the service, such as ``https://pacs.example.org/dicom-web``.
        token_file: file with a bearer token, which its owner alone may read; None to send none.
        ca_file: PEM file of the authorities that are trusted in place of the usual ones.
        retries: how many times a request is repeated.

    Raises:
        ValueError: if the address is none of http or https, is not encrypted and not of this machine, or holds a user's
            name or password; if a file cannot be used. The error repeats nothing of them.

    References:
        DICOM PS3.18 (Web Services): section 10.

    Example:
        >>> DicomWebServer("https://pacs.example.org/dicom-web").host
        'pacs.example.org'
        >>> DicomWebServer("http://pacs.example.org/dicom-web")
        Traceback (most recent call last):
        ValueError: The DICOMweb address is not encrypted; expected https, for all but servers on this machine.
    """

    def __init__(
        self,
        address: str,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        retries: int = 5,
    ) -> None:
        parts = _split(address)
        if parts.query:
            raise ValueError("The DICOMweb address has a query; expected that of the service alone.")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError("The number of repetitions is none; expected a whole number, 0 or more.")
        #: Name and port, as errors say them.
        self.host = parts.netloc
        session = _Session(retries)
        session.verify = True if ca_file is None else _checked_authorities(ca_file)
        if token_file is not None:
            session.headers["Authorization"] = f"Bearer {_read_token(token_file)}"
        # Of UIDs with leading zeros, too, which archives have and the standard has not.
        self._client = DICOMwebClient(
            address.rstrip("/"), session=session, chunk_size=NEVER_IN_PIECES, permissive_uid=True
        )
        # By the session, which does so without logging.
        self._client.set_http_retry_params(retry=False)

    def find(self, query: DicomWebQuery) -> list[tuple[str, str]]:
        """Return the UIDs of study and series of all series that a query means, each once.

        Raises:
            DicomWebError: if the server does not say.
        """
        if query.study is not None and query.series is not None:
            return [(query.study, query.series)]
        filters = dict(query.filters)
        if not query.by_study:
            return [(study, one) for study, one in self._search("series", (STUDY, SERIES), filters, query.study)]
        studies = [study for (study,) in self._search("studies", (STUDY,), filters)]
        return [(study, one) for study in studies for (one,) in self._search("series", (SERIES,), {}, study)]

    def instances(self, study: str, series: str) -> list[str]:
        """Return the UIDs of the instances of a series that the server has; none where it does not know the series.

        Raises:
            DicomWebError: if the server does not say.
        """
        try:
            return [uid for (uid,) in self._search("instances", (INSTANCE,), {}, study, series)]
        except DicomWebError as refused:
            if refused.status != UNKNOWN:
                raise
            return []

    def retrieve(self, study: str, series: str, instance: str) -> Dataset:
        """Return an instance, uncompressed where the server can do that.

        Raises:
            DicomWebError: if it does not send that instance.
        """
        names = (study, series, instance)

        def asked(syntax: str) -> Dataset:
            types = (("application/dicom", syntax),)
            return self._ask(lambda client: _checked(client.retrieve_instance(*names, media_types=types), names))

        try:
            return asked(EXPLICIT_LITTLE_ENDIAN)
        except DicomWebError as refused:
            if refused.status != NOT_ACCEPTABLE:
                raise
        # As it is stored, then.
        return asked("*")

    def store(self, dataset: Dataset) -> None:
        """Store an instance; storing one again that the server has is no error.

        Raises:
            DicomWebError: if the server does not have it afterwards.
        """
        study, series, instance = _names(dataset)
        refused = None
        try:
            if self._ask(lambda client: _stored(client.store_instances([dataset]), instance)):
                return
        except DicomWebError as error:
            if error.status is None:
                raise
            refused = error
        # The answer says nothing of it, or that it is there already, for which servers have several words.
        if instance not in self.instances(study, series):
            raise refused or DicomWebError(
                f"The DICOMweb server {self.host} did not store an object, and does not say why."
            )

    def _search(
        self,
        level: str,
        attributes: tuple[str, ...],
        filters: Mapping[str, str],
        study: str | None = None,
        series: str | None = None,
    ) -> list[tuple[str, ...]]:
        """Return the attributes of all that is found at a level, in pages as large as the server makes them."""
        within = {"study_instance_uid": study, "series_instance_uid": series}
        within = {name: uid for name, uid in within.items() if uid is not None}

        def page(client: DICOMwebClient, offset: int) -> list[tuple[str, ...]]:
            entries = getattr(client, f"search_for_{level}")(**within, search_filters=filters, offset=offset)
            return [tuple(_value(entry, attribute) for attribute in attributes) for entry in entries]

        found: dict[tuple[str, ...], None] = {}
        count = 0
        while new := self._ask(partial(page, offset=count)):
            count += len(new)
            # A server that knows of no pages sends the first one again.
            if set(new) <= set(found):
                break
            found |= dict.fromkeys(new)
        return list(found)

    def _ask(self, call: Callable[[DICOMwebClient], Result]) -> Result:
        """Return what a call returns; of all that it says only the kind of its failure comes out."""
        status = None
        with silenced():
            try:
                return call(self._client)
            except requests.HTTPError as error:
                status = None if error.response is None else error.response.status_code
                reason = f"answered with status {status}"
            except requests.exceptions.SSLError:
                reason = "has a certificate that is not trusted; give the file of its authority, if it is the right one"
            except requests.TooManyRedirects:
                reason = "sends to another address; give that one, if it is the right one"
            except BROKEN:
                reason = "could not be reached, or broke off; look whether it runs, and start again"
            except Exception:
                reason = "answered in another form than DICOMweb; check the address"
        if status in TO_AUTHORISE:
            reason += "; check the token"
        # Raised here, so that no inner error, which may hold anything, is its context.
        raise DicomWebError(f"The DICOMweb server {self.host} {reason}.", status)


class _Session(requests.Session):
    """Asks again what fails by itself."""

    def __init__(self, retries: int) -> None:
        super().__init__()
        self._retries = retries
        self.trust_env = False
        self.max_redirects = 0
        again = urllib3.Retry(
            total=retries,
            # Of STOW-RS, too: an object that is stored twice is there once.
            allowed_methods=None,
            # Such as a certificate that is not trusted.
            other=0,
            status_forcelist=PASSING,
            backoff_factor=FIRST_WAIT,
            backoff_max=LONGEST_WAIT,
            # A server might ask for a day.
            respect_retry_after_header=False,
            redirect=False,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(max_retries=again))

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        # The client leaves the port out of it.
        request.headers.pop("Host", None)
        # A wildcard may stand as it is, and not every server knows it otherwise.
        request.url = str(request.url).replace("%2A", "*")
        settings["timeout"] = TIMEOUT
        for repetition in range(self._retries + 1):
            try:
                return super().send(request, **settings)
            except requests.exceptions.ChunkedEncodingError:
                # Of an answer that breaks off in its middle, the adapter knows nothing.
                if repetition == self._retries:
                    raise
                time.sleep(FIRST_WAIT * 2**repetition)
        raise AssertionError("It has returned or raised before.")


def _split(url: str) -> SplitResult:
    """Return the parts of an address that may be used; raises ValueError without a word of it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        named = parts.username is not None or parts.password is not None
    except ValueError:
        usable = named = False
    if not usable or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("The DICOMweb address cannot be used; expected https://, a host and the path of the service.")
    if named:
        raise ValueError("The DICOMweb address holds a user's name or password; leave them out, and give a token_file.")
    if parts.scheme == "http" and not _is_this_machine(str(parts.hostname)):
        raise ValueError("The DICOMweb address is not encrypted; expected https, for all but servers on this machine.")
    return parts


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_token(path: str | os.PathLike[str]) -> str:
    token, status = "", None
    try:
        with open(path, encoding="ascii") as file:
            # Of the file that is open, which is the one that is read.
            status = os.fstat(file.fileno())
            token = file.read().strip()
    except (OSError, ValueError):
        token = ""
    if status is not None:
        check_private(status, "The file of the token")
    if not token.isprintable() or not token or " " in token:
        raise ValueError("The file of the token is missing or holds none; expected one line, the token itself.")
    return token


def _checked_authorities(path: str | os.PathLike[str]) -> str:
    usable = False
    try:
        ssl.create_default_context(cafile=path)
        usable = True
    except (OSError, ValueError):
        pass
    if not usable:
        raise ValueError("The file of certificate authorities is missing or holds none; expected certificates in PEM.")
    return os.fspath(path)


def _value(entry: Mapping[str, Any], attribute: str) -> str:
    (value,) = entry[attribute]["Value"]
    if not UID.fullmatch(value):
        raise ValueError
    return value


def _names(dataset: Dataset) -> tuple[str, str, str]:
    study, series, instance = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
    return str(study), str(series), str(instance)


def _checked(dataset: Dataset, names: tuple[str, str, str]) -> Dataset:
    if _names(dataset) != names:
        raise ValueError
    return dataset


def _stored(answer: Dataset, instance: str) -> bool:
    """Tell whether a server's answer says that it has stored an instance."""
    stored = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or ()}
    return instance in stored and not answer.get("FailedSOPSequence")
