"""Who may read what: the paths of the HTTP port, their methods, and the token."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any

import msgspec
import pytest
import structlog

from pipeline.config import HttpSettings
from pipeline.errors import UnreachableError
from pipeline.http.application import Answer, Application, PageAnswer, PageRequest, Request, Route

SECRET = "s3cret"  # noqa: S105


def answers(_request: Request) -> Answer:
    return Answer(b"here")


def fails(_request: Request) -> Answer:
    raise UnreachableError("no answer", hint="check the brokers")


def breaks(_request: Request) -> Answer:
    raise ZeroDivisionError


ROUTES = {
    "/open": Route(answers, open=True),
    "/closed": Route(answers),
    "/away": Route(fails, open=True),
    "/broken": Route(breaks, open=True),
}


def ask(
    path: str, settings: HttpSettings | None = None, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a request to this host."""
    application = Application(ROUTES, settings or HttpSettings(), structlog.testing.CapturingLogger())
    found: list[Any] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_HOST": "127.0.0.1:8080", **headers}
    body = b"".join(application(environ, lambda *given: found.extend(given)))
    return int(found[0].split()[0]), dict(found[1]), body


def test_a_path_is_answered() -> None:
    """The length is declared, so that a client can keep its connection."""
    status, headers, body = ask("/open")
    assert (status, body) == (200, b"here")
    assert headers["Content-Length"] == "4"
    assert headers["Cache-Control"] == "no-store"


def test_head_has_the_headers_of_get_and_no_body() -> None:
    """Load balancers probe with HEAD."""
    status, headers, body = ask("/open", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "4", b"")


@pytest.mark.parametrize("path", ["/", "/nothing", "/open/", "/../open", "", "/closed\x00"])
def test_an_unknown_path_names_the_known_ones(path: str) -> None:
    """A user who mistypes a path should not need the documentation."""
    status, _, body = ask(path)
    assert status == HTTPStatus.NOT_FOUND
    assert "/open, /closed" in msgspec.json.decode(body)["hint"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
def test_only_reading_is_allowed(method: str) -> None:
    """Nothing on this port changes anything."""
    status, headers, _ = ask("/open", method=method)
    assert (status, headers["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD")


def test_an_error_of_kafka_is_503_with_the_next_step() -> None:
    """A monitor can tell a worker without Kafka from a broken one."""
    status, _, body = ask("/away")
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert msgspec.json.decode(body) == {"error": "no answer", "hint": "check the brokers"}


def test_a_bug_is_500_without_its_details() -> None:
    """Details belong in the log: another user may read the answer."""
    status, _, body = ask("/broken")
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"Zero" not in body


ANYWHERE = HttpSettings(host="0.0.0.0")  # noqa: S104
WITH_TOKEN = HttpSettings(host="0.0.0.0", token=SECRET)  # noqa: S104


@pytest.mark.parametrize("settings", [HttpSettings(), ANYWHERE, WITH_TOKEN])
def test_probes_and_metrics_need_no_token(settings: HttpSettings) -> None:
    """A kubelet has no token, and Prometheus should not need one."""
    assert ask("/open", settings)[0] == 200


def test_elsewhere_a_protected_path_is_refused_without_a_token() -> None:
    """An address that others can reach must not serve the status because a setting was forgotten."""
    status, _, body = ask("/closed", ANYWHERE)
    assert status == HTTPStatus.FORBIDDEN
    refused = msgspec.json.decode(body)
    assert refused["error"].endswith("is served only on a loopback address")
    assert "http.token" in refused["hint"]


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"Basic {SECRET}", SECRET, "Bearer s3cret\u00e9"]
)
def test_a_wrong_token_is_refused(given: str) -> None:
    """Also one that is not ASCII, which a comparison in constant time could refuse with an exception."""
    status, headers, body = ask("/closed", WITH_TOKEN, HTTP_AUTHORIZATION=given)
    assert (status, headers["WWW-Authenticate"]) == (HTTPStatus.UNAUTHORIZED, "Bearer")
    assert SECRET.encode() not in body


def test_a_wrong_token_is_told_from_a_missing_one() -> None:
    """A reader who has given a token would look for the mistake in the header."""
    _, _, missing = ask("/closed", WITH_TOKEN)
    assert msgspec.json.decode(missing)["error"] == "this path needs a token"
    _, _, wrong = ask("/closed", WITH_TOKEN, HTTP_AUTHORIZATION="Bearer s3cre")
    told = msgspec.json.decode(wrong)
    assert told["error"] == "the token is wrong"
    assert "PIPELINE_HTTP_TOKEN" in told["hint"]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104
def test_the_right_token_is_accepted(host: str) -> None:
    """A token that is set is also required on the loopback address."""
    settings = HttpSettings(host=host, token=SECRET)
    assert ask("/closed", settings, HTTP_AUTHORIZATION=f"Bearer {SECRET}")[0] == 200
    assert ask("/closed", settings)[0] == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("[::1]", 200),
        ("rebound.example:8080", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_resolves_to_loopback_is_refused(host: str, status: int) -> None:
    """A web page whose name resolves to 127.0.0.1 could otherwise read the status through a browser."""
    assert ask("/closed", HTTP_HOST=host)[0] == status


class Echo:
    """Pages that answer with what they were asked."""

    def replaces(self, path: str) -> bool:
        return path == "/open"

    def answer(self, request: PageRequest) -> PageAnswer:
        if request.target == "/away":
            raise UnreachableError("the page has not answered")
        headers = [("X-Method", request.method), ("X-Type", request.headers.get("Content-Type", ""))]
        return PageAnswer(201, "Created", headers, f"{request.target} {request.body!r}".encode())


def ask_page(
    path: str, method: str = "GET", body: bytes = b"", **environ: str
) -> tuple[str, dict[str, str], bytes]:
    """(status line, headers, body) of an application with pages."""
    routes = {name: route for name, route in ROUTES.items() if name != "/away"}
    application = Application(routes, HttpSettings(token=SECRET), structlog.testing.CapturingLogger(), Echo())
    found: list[Any] = []
    given = {"PATH_INFO": path, "REQUEST_METHOD": method, "wsgi.input": BytesIO(body), **environ}
    answer = b"".join(application(given, lambda *each: found.extend(each)))
    return found[0], dict(found[1]), answer


def test_pages_of_the_application_get_the_whole_request() -> None:
    """Its method, path, query, type and body, without a token: the application decides whom it answers."""
    status, headers, body = ask_page(
        "/add/\xc3\xa4 b", "POST", b"{}", QUERY_STRING="x=1&x=2", CONTENT_TYPE="application/json"
    )
    assert status == "201 Created"
    assert headers == {"X-Method": "POST", "X-Type": "application/json"}
    assert body == b"/add/%C3%A4%20b?x=1&x=2 b'{}'"
    assert ask_page("/add", "HEAD")[2] == b""


def test_pages_leave_the_paths_of_the_worker_alone() -> None:
    """Probes and protected documents must not change, except where a page replaces one of ours."""
    assert ask_page("/closed")[0] == "401 Unauthorized"
    assert ask_page("/open")[0] == "201 Created"
    status, _, body = ask_page("/away")
    assert (status, b"has not answered" in body) == ("503 Service Unavailable", True)
