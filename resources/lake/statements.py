"""Decides what SQL may be run: one SELECT over the tables of the catalog, judged by what it does.

DuckDB parses the statement and hands over its syntax tree; every node of the tree must be of a kind
that is known to read tables and nothing else. What is not known is refused. Not here: running it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_SOURCES = {"EMPTY", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "PIVOT"}
_SOURCES |= {"BASE_TABLE", "TABLE_FUNCTION", "SHOW_REF"}  # looked at more closely, below
_MODIFIERS = {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
_ORDERS = {"ORDER_DEFAULT", "ASCENDING", "DESCENDING"}
_NODES = _QUERIES | _SOURCES | _MODIFIERS | _ORDERS
_EXPRESSIONS = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION"}
_EXPRESSIONS |= {"CONSTANT", "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR"}
_EXPRESSIONS |= {"POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "repeat", "json_each", "json_tree"}
_HIDDEN_FUNCTIONS = {"current_setting", "getenv", "getvariable", "json_serialize_plan", "write_log"}
_HIDDEN_FUNCTIONS |= {"nextval", "currval", "setval", "which_secret"}
_SHOW_TABLES = ("SHOW_SPECIAL", '"tables"')
_EXPLAIN = re.compile(r"\s*EXPLAIN\s(?P<select>.*)", re.IGNORECASE | re.DOTALL)


class QueryError(ValueError):
    """A statement that is refused, that is wrong, or that took too much; the message says why."""


@dataclass(frozen=True)
class Select:
    """A statement that may be run, and the tables of the catalog that it reads."""

    sql: str
    tables: frozenset[str]


def check(connection: duckdb.DuckDBPyConnection, sql: str, tables: Collection[str]) -> Select:
    """Return the statement if it is one SELECT over `tables`; else raise QueryError.

    DESCRIBE, SUMMARIZE and SHOW TABLES count as SELECTs, as they do in DuckDB; so does EXPLAIN of
    a SELECT, which runs nothing.
    """
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError(f"one statement at a time; these are {len(statements)}")
        kind, plain = statements[0].type, sql
        explained = _EXPLAIN.fullmatch(sql)
        if kind == duckdb.StatementType.EXPLAIN and explained:
            plain = explained["select"]
        answer = connection.execute("SELECT json_serialize_sql(?)", [plain]).fetchall()
        tree = json.loads(answer[0][0])
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, QueryError):
            raise
        raise QueryError("the statement is nested too deeply") from error
    if tree["error"] or len(tree["statements"]) != 1:
        raise QueryError(_why_no_select(kind.name, sql))
    return Select(sql, frozenset(_tables_read(tree["statements"][0]["node"], tables)))


def _why_no_select(kind: str, sql: str) -> str:
    words = sql.split()
    if kind == "EXPLAIN":
        return "only SELECT is allowed here, or a SELECT after EXPLAIN (without ANALYZE or options)"
    if any(word.upper().strip("(") == "PIVOT" for word in words):
        return "only SELECT is allowed here: a PIVOT must list its values, `ON label IN ('a', 'b')`"
    return f"only SELECT is allowed here, not {kind.removesuffix('_STATEMENT')}"


def _tables_read(tree: dict[str, Any], tables: Collection[str]) -> Iterator[str]:
    """Yield the tables that a tree names. Raises QueryError for what it must not do.

    Next to each node goes the set of names that WITH has given to subqueries before it.
    """
    stack: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while stack:
        node, named = stack.pop()
        if isinstance(node, list):
            stack.extend((child, named) for child in node)
        if not isinstance(node, dict):
            continue
        _check_kind(node)
        if node.get("type") == "BASE_TABLE" and (table := _table(node, named, tables)):
            yield table
        if "cte_name" in node:  # of WITH RECURSIVE: it may name itself
            named |= {str(node["cte_name"]).lower()}
        for entry in (node.get("cte_map") or {}).get("map", []):
            stack.append((entry["value"], named))
            named |= {str(entry["key"]).lower()}
        stack.extend((child, named) for name, child in node.items() if name != "cte_map")


def _check_kind(node: dict[str, Any]) -> None:
    """Raise QueryError unless nodes of this kind only read."""
    kind, of_expression = node.get("type"), node.get("class")
    if of_expression is not None:
        if of_expression not in _EXPRESSIONS:
            raise QueryError(f"not allowed in a SELECT here: {_words(of_expression)}")
        if str(node.get("function_name", "")).lower() in _HIDDEN_FUNCTIONS:
            raise QueryError(f"the function {node['function_name']} is not available here")
    elif isinstance(kind, str) and kind not in _NODES:
        if kind.endswith("_QUERY_NODE"):
            kind = kind.removesuffix("_QUERY_NODE")
            raise QueryError(f"only SELECT is allowed here, not {kind}")
        raise QueryError(f"not allowed in a SELECT here: {_words(kind)}")
    if kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "a function")).lower()
        if name not in _TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(_TABLE_FUNCTIONS))
            raise QueryError(f"{name} is not available in FROM: only tables and {allowed} are")
    if kind == "SHOW_REF":
        shown = (node.get("show_type"), node.get("table_name"))
        of_query = shown[0] in {"DESCRIBE", "SUMMARY"} and node.get("query")
        if not of_query and shown != _SHOW_TABLES:
            raise QueryError("only SHOW TABLES, and DESCRIBE and SUMMARIZE of a table or a SELECT")


def _table(node: dict[str, Any], named: frozenset[str], tables: Collection[str]) -> str | None:
    """Return the table of the catalog that a name in FROM means; None if it is of a WITH."""
    name = str(node.get("table_name", "")).lower()
    place = tuple(str(node.get(part) or "").lower() for part in ("catalog_name", "schema_name"))
    if name in tables and place in {("", ""), ("", "main")}:
        return name
    if name in named and place in {("", ""), ("", "recurring")}:
        return None
    shown = ".".join(part for part in (*place, name) if part)
    close = difflib.get_close_matches(name, list(tables), n=1)
    hint = f"did you mean {close[0]}? There are" if close else "there are"
    raise QueryError(f"there is no table {shown!r}: {hint} {', '.join(tables)}")


def _words(kind: str) -> str:
    return kind.lower().replace("_", " ")
