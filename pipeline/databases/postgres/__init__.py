"""The adapter for PostgreSQL. Only this package imports psycopg."""

from pipeline.databases.postgres.session import Pinned as Pinned
from pipeline.databases.postgres.session import PostgresSession as PostgresSession
