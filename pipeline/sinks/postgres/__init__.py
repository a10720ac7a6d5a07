"""PostgreSQL: the only package that imports psycopg."""

from pipeline.sinks.postgres.session import Pinned as Pinned
from pipeline.sinks.postgres.session import PostgresSession as PostgresSession
