"""PostgreSQL: the only package that imports psycopg."""

from pipeline.databases.postgres.session import Pinned as Pinned
from pipeline.databases.postgres.session import PostgresSession as PostgresSession
