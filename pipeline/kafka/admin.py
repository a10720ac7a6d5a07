"""Requests of an admin client: `AdminRequests`, the base class of the cluster adapter."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.config import KafkaSettings
from pipeline.errors import PipelineError, UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import NO_ANSWER, error_of, is_login, login_failure, request_failure
from pipeline.kafka.reachable import NoWait, StartupWait, require_listener, wait_for_answer
from pipeline.ports import Deadline, SystemClock

__all__ = ["REQUEST_TIMEOUT_S", "AdminRequests"]

REQUEST_TIMEOUT_S = 10.0
_LOGIN_S = 3.0  # a refused login is reported after this time, because other brokers may accept it
_PROTOCOL = "check security.protocol in the section [kafka]: whether this port has TLS and SASL"
_VISIBLE_TIMEOUT_S = 30.0
_VISIBLE_POLL_S = 0.02


class _ClientLog:
    """The log of a client. Remembers the line in which the client explains a connection that the broker closed."""

    def __init__(self) -> None:
        self.guess = ""

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Forward a line to the package's logger. This is the only method that the client calls."""
        text = message % arguments if arguments else message
        if "security.protocol" in text:
            self.guess = text.rpartition("]: ")[2]
        clients.LOGGER.log(level, "%s", text)


class AdminRequests:
    """One admin client. Thread-safe. `wait`: how long the first request waits for Kafka."""

    def __init__(self, settings: KafkaSettings, wait: StartupWait | None = None) -> None:
        self._settings = settings
        self._servers = settings.bootstrap_servers
        self._refused: KafkaError | None = None  # a refused login
        self._log = _ClientLog()
        self._client = self._open()
        self._wait_at_start = wait if wait is not None else NoWait()
        self._reached = False

    def close(self) -> None:
        """Do nothing: the client stops when it is garbage-collected."""

    @property
    def _admin(self) -> AdminClient:
        """The client. The first request waits until Kafka is reachable; for later requests the client itself waits."""
        if not self._reached:
            wait_for_answer(self._check_reachable, self._wait_at_start)
            self._reached = True
        return self._client

    def _check_reachable(self) -> None:
        """Raise UnreachableError if nothing listens, or, if a start waits for Kafka, if no broker answers."""
        require_listener(self._servers)
        if self._wait_at_start.seconds > 0:
            # A container engine or a proxy may listen before Kafka itself does.
            try:
                self._answer(self._client.describe_cluster(request_timeout=self._timeout_s), "cluster")
            except UnreachableError as error:
                raise UnreachableError(
                    f"a program listens at {self._servers}, and does not answer as Kafka",
                    hint="check the address. If it is right, Kafka may still be starting, or security.protocol in "
                    "[kafka] differs from that of the listener",
                ) from error

    @property
    def _timeout_s(self) -> float:
        return REQUEST_TIMEOUT_S

    def _describe_cluster(self) -> Any:
        return self._answer(self._admin.describe_cluster(request_timeout=self._timeout_s), "cluster")

    def _answer(
        self, future: Future[Any], what: str, *, needs: str = "", ignore: frozenset[int] = frozenset()
    ) -> Any:
        """The result of the future; None for an error code in `ignore`. `needs`: the permission for the request.

        Raises ConfigError without waiting for the time-out if the client cannot log in.
        """
        self._client.poll(0)  # forwards the client's log
        try:
            answer = self._wait_for(future, what)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() in ignore:
                return None
            if error.code() == KafkaError._TIMED_OUT:  # noqa: SLF001
                self._client.poll(0)
                self._require_login(what)
                self._choose_another_broker()
            raise self._with_reason(
                request_failure(error, f"{what} on {self._servers}", needs)
            ) from exception
        except TimeoutError as error:
            self._choose_another_broker()
            raise UnreachableError(f"{what} on {self._servers}: no answer", hint=NO_ANSWER) from error
        self._refused = None  # it is not the cause of a later failure
        return answer

    def _wait_for(self, future: Future[Any], what: str) -> Any:
        try:
            return future.result(timeout=_LOGIN_S)
        except TimeoutError:
            self._client.poll(0)
            self._require_login(what)
        return future.result(timeout=self._timeout_s + 5 - _LOGIN_S)

    def _with_reason(self, failure: PipelineError) -> PipelineError:
        """An UnreachableError with what the client guesses from a closed connection: a wrong security.protocol."""
        if isinstance(failure, UnreachableError) and self._log.guess:
            reason = f"{failure.message}; the client reports: {self._log.guess}"
            return UnreachableError(reason, hint=_PROTOCOL)
        return failure

    def _choose_another_broker(self) -> None:
        """Replace the client, which sends these requests only to the last known controller.

        If that broker is unreachable, the client does not ask other brokers for the new controller. It reconnects
        without a pause and uses a whole core.
        """
        self._client = self._open()

    def _open(self) -> AdminClient:
        properties = clients.admin(self._settings)
        properties |= {"error_cb": self._note, "logger": self._log}
        return clients.open_client(AdminClient, properties)

    def _note(self, error: KafkaError) -> None:
        clients.global_error(error)
        if is_login(error):
            self._refused = error

    def _require_login(self, what: str) -> None:
        """Raise ConfigError if a broker refused the login since the last answer."""
        if self._refused is not None:
            raise login_failure(self._refused, f"{what} on {self._servers}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = Deadline(SystemClock(), _VISIBLE_TIMEOUT_S, _VISIBLE_POLL_S)
        while not condition():
            if not deadline.pause():
                raise UnreachableError(
                    f"waited {_VISIBLE_TIMEOUT_S:.0f} s for {what} on {self._servers}",
                    hint="Kafka may be busy, or a broker unreachable: run the command again",
                )
