"""Requests to a registry (OCI distribution specification 1.1), with bounds in time and size.

python-dxf speaks the protocol. oras 0.2 was the other choice: its requests have no time-out, and it returns a
manifest without the bytes that its digest is of.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dxf
import requests
import urllib3
from dxf import exceptions

from pytest_vmsnap.errors import RegistryError
from pytest_vmsnap.registry import credentials
from pytest_vmsnap.registry.artifact import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vmsnap.registry.address import RegistryAddress

log = logging.getLogger("pytest_vmsnap.registry")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0  # without a byte
SLOWEST = 64 << 10  # bytes a second
ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # before the second attempt; then twice as long
LONGEST_PAUSE_SECONDS = 10.0  # that a registry may ask for (Retry-After)
PASSING = (429, 500, 502, 503, 504)  # HTTP status codes after which another attempt may succeed
REFUSED = (401, 403)
MOST_REDIRECTS = 5
LARGEST_ANSWER = 8 << 20  # bytes; of a manifest, a token, or an error
CHUNK = 1 << 20
BROKEN_OFF = (
    requests.Timeout,
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)
# OpenSSL's words for an answer without TLS, by its version (urllib3 knows the same)
NO_TLS = ("wrong version number", "unknown protocol", "record layer failure")

Answer = TypeVar("Answer")


class Client:
    """A repository of a registry; several threads may use it at once."""

    def __init__(self, address: RegistryAddress) -> None:
        self.address = address
        self._own = threading.local()
        self._lock = threading.Lock()
        self._plain: bool | None = None
        self._login: tuple[str, str] | None = None
        self._asked_login = False

    def manifest(self, reference: str) -> bytes | None:
        """The manifest that `reference` names, a tag or a digest; None if there is none."""
        found = self._find(f"manifest {reference}", lambda each: each.get_manifest_and_response(reference))
        if found is None:
            return None
        data: bytes = found[1].content
        if reference.startswith("sha256:") and digest_of(data) != reference:
            raise self._error(f"manifest {reference}", "its content is not what its digest says")
        return data

    def blob(self, digest: str, size: int) -> bytes:
        """The content of a blob, which has `size` bytes; its digest is checked."""

        def fetch(each: _Repository) -> bytes:
            got = bytearray()
            for part in each.pull_blob(digest, chunk_size=CHUNK):
                got += cast("bytes", part)
                if len(got) > size:
                    raise RegistryError(f"it has more than the {size} bytes that it should have")
            return bytes(got)

        found = self._find(f"blob {digest}", fetch)
        if found is None:
            raise self._error(f"blob {digest}", "the registry no longer has it")
        return found

    def put(self, digest: str, data: bytes) -> bool:
        """Store the blob `data`; returns False if the registry had it already."""
        what = f"blob {digest}"
        if self._find(what, lambda each: each.blob_size(digest)) is not None:
            return False
        self._attempt(
            what,
            lambda each: each.push_blob(data=data, digest=digest, check_exists=False),  # type: ignore[arg-type]
        )
        return True

    def put_manifest(self, tag: str, manifest: bytes) -> None:
        """Store a manifest under `tag`; its blobs are there already."""
        self._attempt(f"manifest {tag}", lambda each: each.set_manifest(tag, manifest.decode()))

    def _find(self, what: str, ask: Callable[[_Repository], Answer]) -> Answer | None:
        """What `ask` returns; None if the registry does not have `what`."""

        def look(each: _Repository) -> Answer | None:
            try:
                return ask(each)
            except requests.HTTPError as error:
                response = cast("requests.Response", error.response)
                is_ours = response.url.startswith(each.base_url)  # not the server that gives tokens
                if is_ours and response.status_code == requests.codes.not_found:
                    return None
                raise

        return self._attempt(what, look)

    def _attempt(self, what: str, ask: Callable[[_Repository], Answer]) -> Answer:
        """What `ask` returns, after more attempts if the registry fails; raises `RegistryError`."""
        pause = PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask(self._repository())
            except requests.HTTPError as error:
                response = cast("requests.Response", error.response)
                said = f"it answers {response.status_code} {response.reason or ''}".rstrip()
                if response.status_code in REFUSED:
                    raise self._refusal(what, said) from error
                if response.status_code not in PASSING:
                    raise self._error(what, said) from error
                pause = max(pause, _retry_after(response))
            except exceptions.DXFUnauthorizedError as error:
                raise self._refusal(what, "it asks for a login") from error
            except exceptions.DXFAuthInsecureError as error:
                said = "it asks for a login without TLS, which would show the password to the network"
                raise self._error(what, said, is_lost=True) from error
            except exceptions.DXFDigestMismatchError as error:
                raise self._error(what, "its content is not what its digest says") from error
            except RegistryError as error:
                raise self._error(what, error.message, error.hint, is_lost=error.is_lost) from error
            except requests.exceptions.SSLError as error:
                raise self._error(what, _reason(error), is_lost=True) from error
            except BROKEN_OFF as error:
                said = _reason(error)
                self._own.repository = None
            except requests.TooManyRedirects as error:
                raise self._error(what, f"it answers with more than {MOST_REDIRECTS} redirects") from error
            except (
                requests.RequestException,
                exceptions.DXFError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                raise self._error(what, f"its answer cannot be used ({error!r})") from error
            if attempt == ATTEMPTS:
                break
            log.info("%s of %s: %s; attempt %d follows", what, self.address, said, attempt + 1)
            time.sleep(pause)
            pause *= 2
        raise self._error(what, said, is_lost=True)

    def _refusal(self, what: str, said: str) -> RegistryError:
        if self._login:
            said = f"it refuses the login as {self._login[0]} ({said})"
        hint = f"log in with `docker login {self.address.host}` or `podman login {self.address.host}`"
        return self._error(what, said, hint, is_lost=True)

    def _error(self, what: str, said: str, hint: str = "", *, is_lost: bool = False) -> RegistryError:
        return RegistryError(f"{what} of {self.address}: {said}", hint=hint, is_lost=is_lost)

    def _repository(self) -> _Repository:
        found: _Repository | None = getattr(self._own, "repository", None)
        if found is None:
            found = _Repository(
                self.address.host,
                self.address.repository,
                auth=self._log_in,
                insecure=self._is_plain(),
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            )
            self._own.repository = found
        return found

    def _log_in(self, repository: dxf.DXFBase, response: requests.Response) -> None:
        with self._lock:
            if not self._asked_login:
                self._asked_login = True
                self._login = credentials.find(self.address)
        name, password = self._login or (None, None)
        repository.authenticate(name, password, response=response)

    def _is_plain(self) -> bool:
        """Whether the registry speaks HTTP without TLS; only one on this host may."""
        with self._lock:
            if self._plain is None:
                self._plain = self.address.is_loopback and not _speaks_tls(self.address.host)
            return self._plain


class _Repository(dxf.DXF):
    """python-dxf's repository, with a session of ours."""

    def __init__(self, host: str, repository: str, *, insecure: bool, **more: Any) -> None:
        super().__init__(host, repository, insecure=insecure, **more)
        self._sessions = [_Session(plain=insecure)]

    @property
    def base_url(self) -> str:
        return self._base_url


class _Session(requests.Session):
    """A session that reads no answer without end, and sends nothing without TLS unless it is `plain`.

    It takes no login from ``~/.netrc``, which requests would send in place of the registry's token.
    """

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self.max_redirects = MOST_REDIRECTS
        self.auth = lambda request: request
        self._is_plain = plain

    def request(  # type: ignore[override]  # all but `stream` is passed on
        self, method: str, url: str, *, stream: bool = False, **more: Any
    ) -> requests.Response:
        response = super().request(method, url, stream=True, **more)
        if stream and response.ok:
            response.iter_content = lambda *_, **__: _parts(response)  # type: ignore[method-assign]
        else:
            response._content = _bounded(response)  # noqa: SLF001 - what requests itself would set
        return response

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        if not self._is_plain and not (request.url or "").startswith("https://"):
            raise RegistryError(f"it leads to an address without TLS, {request.url}")
        return super().send(request, **more)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        leaves = self.should_strip_auth(str(response.request.url), str(prepared_request.url))
        if leaves and "Authorization" in prepared_request.headers:
            del prepared_request.headers["Authorization"]

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target:
            resp._content = _bounded(resp)  # noqa: SLF001 - requests would read all of it
        return target


def _parts(response: requests.Response) -> Iterator[bytes]:
    """The content of an answer as it comes, for as long as it may take."""
    size = int(response.headers.get("Content-Length") or LARGEST_ANSWER)
    deadline = time.monotonic() + ANSWER_SECONDS + size / SLOWEST
    with response:
        while part := response.raw.read1(CHUNK, decode_content=True):
            yield part
            if time.monotonic() > deadline:
                raise requests.Timeout("the answer comes too slowly")


def _bounded(response: requests.Response) -> bytes:
    """The content of an answer, which is short."""
    got = bytearray()
    for part in _parts(response):
        got += part
        if len(got) > LARGEST_ANSWER:
            raise RegistryError(f"its answer has more than {LARGEST_ANSWER >> 20} MiB")
    return bytes(got)


def _speaks_tls(host: str) -> bool:
    try:
        with requests.get(f"https://{host}/v2/", timeout=CONNECT_SECONDS, stream=True):
            return True
    except requests.exceptions.SSLError as error:
        said = str(error).lower().replace("_", " ")
        return not any(words in said for words in NO_TLS)  # else its certificate is not trusted
    except requests.RequestException:
        return False


def _retry_after(response: requests.Response) -> float:
    """The seconds that the registry asks to wait (RFC 9110, Retry-After), within bounds."""
    try:
        return max(0.0, min(float(response.headers.get("Retry-After", 0)), LONGEST_PAUSE_SECONDS))
    except ValueError:
        return 0.0


def _reason(error: BaseException) -> str:
    """What went wrong on the network, without the objects that requests and urllib3 print."""
    if isinstance(error, requests.ConnectTimeout):
        return f"it does not answer within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS fails: {_innermost(error)}"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {ANSWER_SECONDS:.0f} s ({_innermost(error)})"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.ProtocolError):
        return "the connection ended in the middle of an answer"
    return f"it cannot be reached: {_innermost(error)}"


def _innermost(error: BaseException) -> str:
    """The text of the error that caused `error`: of the socket, or of TLS."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or next(
            (each for each in getattr(inner, "args", ()) if isinstance(each, BaseException)), None
        )
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner).rpartition(">: ")[2] or str(inner)
