"""Reads the description of a sink's table from the system catalog: `shape_of`, `facts_of`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.core.row_sets import TableFacts
from pipeline.databases.postgres.kinds import kind_of
from pipeline.databases.sql import quoted
from pipeline.ports.databases import TableShape

__all__ = ["facts_of", "shape_of"]

Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

_FIND = (
    "SELECT c.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)"
)
_INDEXES = (
    "SELECT i.indisprimary, ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) "
    "WITH ORDINALITY k(n, place) JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n "
    "ORDER BY k.place) FROM pg_catalog.pg_index i WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid "
    "AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate"
)
# The name of a type, valid under any search_path. Without its length, because a cast would truncate to it.
_COLUMNS = """
SELECT a.attname::text, CASE
    WHEN n.nspname <> 'pg_catalog' THEN quote_ident(n.nspname) || '.' || quote_ident(t.typname)
    WHEN t.typname IN ('bpchar', 'varchar', 'bit', 'varbit') THEN format_type(a.atttypid, -1)
    ELSE format_type(a.atttypid, a.atttypmod)
  END, CASE WHEN n.nspname = 'pg_catalog' THEN t.typname::text ELSE '' END, a.atttypmod,
  CASE WHEN t.typcategory = 'A' THEN coalesce(e.typname::text, '') ELSE '' END,
  coalesce(c.collisdeterministic, true), a.attnotnull, a.attgenerated <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typnamespace = t.typnamespace
  LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_TABLE = """
SELECT c.relkind = 'r' AND NOT c.relispartition AND NOT c.relhassubclass AND NOT c.relhasrules AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
  EXISTS (SELECT FROM pg_catalog.pg_constraint k
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid = c.oid),
  c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_constraint k
    WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'x')),
  current_setting('server_encoding') = 'UTF8'
FROM pg_catalog.pg_class c WHERE c.oid = %s
"""
# `plain`: an index of columns with their default comparison. `exotic`: an index that may refuse entries.
_OTHER_INDEXES = """
SELECT i.indisunique OR i.indisexclusion, i.indimmediate,
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) k(n)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n),
  i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (
    SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1], i.indcollation, i.indclass) k(n, rule, operators)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
    JOIN pg_catalog.pg_opclass o ON o.oid = k.operators
    WHERE k.rule <> a.attcollation OR NOT o.opcdefault) AS plain,
  i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR m.amname NOT IN ('btree', 'hash') AS exotic
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = x.relam
WHERE i.indrelid = %s
"""


def shape_of(query: Query, table: str) -> TableShape | None:
    """As `SinkSession.shape`."""
    found = query(_FIND, (quoted(table),))
    if not found:
        return None
    oid, name = found[0]
    columns = query(_COLUMNS, (oid,))
    indexes = query(_INDEXES, (oid,))
    rights = query(
        "SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r "
        "WHERE NOT has_table_privilege(%s::oid, r)",
        (oid,),
    )
    primary = next((tuple(names) for is_primary, names in indexes if is_primary), ())
    return TableShape(
        tuple(column[0] for column in columns),
        primary,
        [frozenset(names) for _, names in indexes],
        [right for (right,) in rights],
        name,
    )


def facts_of(query: Query, name: str, key: Sequence[str]) -> TableFacts | None:
    """As `SinkSession.facts`."""
    found = query(_FIND, (name,))
    if not found:
        return None
    oid = found[0][0]
    [(one_statement, refers_to_itself, checked, unicode)] = query(_TABLE, (oid,))
    others = query(_OTHER_INDEXES, (oid,))
    keys = [index for index in others if index[0] and index[3] and set(index[2]) == set(key)]
    if keys:
        others.remove(keys[0])
    columns = query(_COLUMNS, (oid,))
    return TableFacts(
        {
            column: kind_of(
                kind, modifier, element, deterministic=deterministic, unicode=unicode, indexed=bool(others)
            )
            for column, _, kind, modifier, element, deterministic, _, _ in columns
        },
        {column[0]: column[1] for column in columns},
        frozenset(column[0] for column in columns if column[6]),
        # Deferrable constraints and references are checked at the end of a statement, for any number of rows.
        in_sets=one_statement
        and not refers_to_itself
        and (bool(keys) or not key)
        and all(index[1] for index in others),
        independent=not any(index[0] for index in others),
        unchecked=not checked and not any(column[7] for column in columns) and not any(i[4] for i in others),
    )
