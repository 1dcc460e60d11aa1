"""Files from an address, identified by their checksum."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pooch
import requests

from pytest_vmsnap.errors import ImageError
from pytest_vmsnap.image.checksum import DISK, META, Checksum
from pytest_vmsnap.image.local_image import describe

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from pytest_vmsnap.model import Image, ImageRequest
    from pytest_vmsnap.progress import Progress, Step
    from pytest_vmsnap.store import Store

CONNECT_SECONDS, SILENCE_SECONDS = 30.0, 60.0
CHUNK = 1 << 16
TEXT_BYTES = 8 << 20  # a directory or a list of checksums is shorter
FRUITLESS_ATTEMPTS = 2


def provide_download(request: ImageRequest, address: str, *, store: Store, progress: Progress) -> Image:
    """Return the image at `address`, from the store or downloaded; `request.sha256` is its digest.

    The next attempt resumes an interrupted download. Raises `ImageError` if the digest is missing or wrong, the
    download fails, or the image cannot be used, `SpecError` as `describe` does.
    """
    shown = without_secrets(address)
    checksum = _checked(request.sha256, shown)
    entry = fetch_into_store(
        address,
        checksum,
        what=shown,
        hint="if the address has a newer image, update vmsnap_image_sha256, or use an address that names a "
        "version, whose image does not change",
        store=store,
        progress=progress,
    )
    return describe(request, entry / DISK, origin=shown, content=checksum.digest)


def fetch_into_store(
    address: str,
    checksum: Checksum,
    *,
    what: str,
    expected: str = "",
    hint: str,
    store: Store,
    progress: Progress,
) -> Path:
    """Return the store's entry with the image that has this checksum; fetch it from `address` if needed.

    `what` names it to the user, `expected` says where the checksum comes from, `hint` what to do if the file
    there has another one. Raises `ImageError` if the download fails.
    """
    part = store.path / "downloads" / f"{checksum.digest}.part"

    def fill(draft: Path) -> None:
        with progress.step(f"fetching the image {what}") as step:
            download(address, part, checksum, step, expected=expected, hint=hint)
        part.rename(draft / DISK)
        meta = {"name": what, "address": without_secrets(address), "fetched": time.time()}
        (draft / META).write_text(json.dumps(meta | {checksum.algorithm: checksum.digest}))

    return store.provide("images", checksum.key, f"image {what}", fill)


def read_text(address: str) -> str:
    """The text at `address`, at most `TEXT_BYTES` of it. Raises `ImageError` if it cannot be fetched."""
    try:
        with requests.get(address, timeout=(CONNECT_SECONDS, SILENCE_SECONDS), stream=True) as response:
            response.raise_for_status()
            found = bytearray()
            for chunk in response.iter_content(CHUNK):
                found += chunk
                if len(found) > TEXT_BYTES:
                    raise ImageError(f"{without_secrets(address)} is longer than {TEXT_BYTES >> 20} MiB")
    except requests.RequestException as error:
        raise _failure(address, error, what="") from None  # the original shows the address's secrets
    return found.decode(errors="replace")


def without_secrets(address: str) -> str:
    """Return `address` without possible secrets: user, password, query."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))


def _checked(sha256: str | None, shown: str) -> Checksum:
    how = (
        f"take it from the distribution's SHA256SUMS, or run: curl -fsSL {shown} | sha256sum\n"
        "and set vmsnap_image_sha256"
    )
    if not sha256:
        raise ImageError(f"the image {shown} is an address, so its SHA-256 digest is needed", hint=how)
    try:
        return Checksum.parse(f"sha256:{sha256.strip().lower().removeprefix('sha256:')}")
    except ValueError:
        raise ImageError(
            f"image_sha256={sha256!r} is not a SHA-256 digest: one has 64 hexadecimal digits", hint=how
        ) from None


def download(
    address: str, part: Path, checksum: Checksum, step: Step, *, expected: str = "", hint: str = ""
) -> None:
    """Fetch `address` into the file `part` and check its `checksum`; resume if part of it is there.

    Raises `ImageError` if that fails; then `part` stays if it may be of use to resume.
    """
    continued = _size(part) > 0
    _fetch(address, part, step)
    found = _digest(part, checksum, step)
    if found != checksum.digest and continued:  # the earlier part may be from another file
        part.unlink()
        _fetch(address, part, step)
        found = _digest(part, checksum, step)
    if found != checksum.digest:
        part.unlink()
        source = f" ({expected})" if expected else ""
        raise ImageError(
            f"the image {without_secrets(address)} has another digest\n  expected {checksum.digest}{source}\n"
            f"  found    {found}",
            hint=f"the download was deleted; {hint}",
        )


def _digest(part: Path, checksum: Checksum, step: Step) -> str:
    step.say("checking the digest")
    return str(pooch.file_hash(str(part), alg=checksum.algorithm))


def _fetch(address: str, part: Path, step: Step) -> None:
    """Fetch until `part` is as long as the server says; retry as long as the attempts make progress."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _fetch_rest(address, part, step)
            return
        except requests.RequestException as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if _final(error) or fruitless >= FRUITLESS_ATTEMPTS:
                raise _failure(address, error) from None  # the original shows the address's secrets


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fetch_rest(address: str, part: Path, step: Step) -> None:
    """Append the rest to `part`; if the server does not support ranges, `part` starts from zero."""
    with part.open("ab") as file:
        start = file.tell()
        response_seen = _Response(file)
        meter = _Meter(file, step)
        downloader = pooch.HTTPDownloader(
            progressbar=meter,
            chunk_size=CHUNK,
            timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
            hooks={"response": response_seen},
            headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {}),
        )
        try:
            downloader(address, file, None)
        except requests.HTTPError as error:
            # 416: nothing is missing, or the part is from another file (RFC 9110, 15.5.17)
            if start and error.response is not None and error.response.status_code == 416:
                if response_seen.length != start:
                    file.truncate(0)
                    raise requests.ConnectionError("the part that was fetched is of another file") from error
                return
            raise
        finally:
            response_seen.close()
        if response_seen.length is not None and file.tell() != response_seen.length:
            raise requests.ConnectionError("the connection ended early")  # urllib3 1 does not report this


class _Response:
    """Read the headers before the body is written; `length` is the length of the whole file, if known."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._responses: list[requests.Response] = []
        self.length: int | None = None

    def close(self) -> None:
        """Close the connections; pooch leaves them open if something fails."""
        for response in self._responses:
            response.close()

    def __call__(self, response: requests.Response, **_: object) -> None:
        self._responses.append(response)
        start = self._file.tell()
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if response.status_code in (206, 416):
            self.length = int(span[2]) if span and span[2].isdigit() else None
        if response.status_code == 200 or (
            response.status_code == 206 and not (span and span[1] == str(start))
        ):
            self._file.seek(0)
            self._file.truncate(0)
        if response.status_code == 206 and not (span and span[1] == str(start)):
            raise requests.ConnectionError("the server sent another part than was asked for")
        if response.status_code == 200 and (length := response.headers.get("Content-Length")):
            self.length = int(length)


class _Meter:
    """The progress bar for pooch, which sets `total` to the length of this response."""

    def __init__(self, file: BinaryIO, step: Step) -> None:
        self._file = file
        self._step = step
        self._start: int | None = None
        self.total = 0

    def update(self, _count: int) -> None:
        have = self._file.tell()
        if self._start is None:
            self._start = max(0, have - CHUNK)
        whole = f" of {(self._start + self.total) / 1e6:.0f}" if self.total else ""
        self._step.say(f"{have / 1e6:.0f}{whole} MB")

    def reset(self) -> None:
        """Do nothing: the position in the file is the progress."""

    def close(self) -> None:
        """Do nothing: the step ends by itself."""


def _final(error: requests.RequestException) -> bool:
    """Whether a retry cannot help, for example because the server refuses the request."""
    return (error.response is not None and error.response.status_code < 500) or isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.SSLError | requests.TooManyRedirects
    )


def _failure(address: str, error: requests.RequestException, *, what: str = "the image ") -> ImageError:
    if error.response is not None:
        why = f"the server answers {error.response.status_code} {error.response.reason}"
        hint = {
            401: "the server requires a login: fetch the file yourself and set vmsnap_image to its path",
            403: "the server denies access: fetch the file yourself and set vmsnap_image to its path",
            404: "check the address: servers remove old images; look at its directory in a browser",
        }.get(error.response.status_code, "try again later, or download it and set vmsnap_image to its path")
    else:
        why = {
            requests.ConnectTimeout: f"no connection within {CONNECT_SECONDS:.0f} s",
            requests.ReadTimeout: f"no data came for {SILENCE_SECONDS:.0f} s",
            requests.exceptions.SSLError: "the server's certificate is not accepted",
        }.get(type(error), _cause(error))
        hint = "check the network and the proxy (https_proxy); the next run resumes the download"
    return ImageError(f"{what}{without_secrets(address)} cannot be fetched: {why}", hint=hint)


def _cause(error: BaseException) -> str:
    """The innermost reason in a few words; the outer ones show the address with its secrets."""
    text = str(error)
    for words in (
        "Connection refused",
        "Name or service not known",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "No route to host",
        "ended early",
        "another part",
        "another file",
    ):
        if words in text:
            return words.lower() if words[0].isupper() else f"the connection failed ({words})"
    return "the connection broke" if isinstance(error, requests.ConnectionError) else type(error).__name__
