"""Crystals in JSON: of pymatgen, ASE, JARVIS and OPTIMADE, alone, in lists, tables or nested dictionaries."""

import ast
import io
import json
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from autoperi.data.reading.rows import (
    MAX_ATOMS,
    TEXT_NAMES,
    NoCrystalsError,
    ReadError,
    Row,
    crystal,
    labels,
    own_name,
)

if TYPE_CHECKING:
    from pymatgen.core import Structure

_KINDS = {
    "pymatgen": ("lattice", "sites"),
    "JARVIS": ("lattice_mat", "coords", "elements"),
    "OPTIMADE": ("lattice_vectors", "cartesian_site_positions", "species_at_sites"),
    "ASE": ("cell", "positions", "numbers"),
}
"""Keys by which a dictionary is known."""
_DEEPEST = 40


def json_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    """The crystals anywhere in a file; an object that has none is a row that says so."""
    try:
        loaded = json.load(stream)
    except RecursionError:
        raise ReadError("expected crystals in JSON: got an object nested too deeply") from None
    if not _holds_crystal(loaded, 0):
        if isinstance(loaded, list) and not loaded:
            return
        what = f"keys {sorted(map(str, loaded))[:8]}" if isinstance(loaded, dict) else type(loaded).__name__
        if not (isinstance(loaded, list) and any(isinstance(item, dict) for item in loaded)):
            raise NoCrystalsError(f"expected structures in JSON: got {what}")
    for number, row in enumerate(_walk(loaded, stem, {}, 0)):
        yield Row(row.id, row.payload, row.labels, f"{name}, item {number}", row.error)


def jsonl_rows(stream: io.TextIOBase, stem: str, name: str) -> Iterator[Row]:
    """One JSON object a line; a line that is none costs itself."""
    number = 0
    while line := stream.readline():
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            for row in _walk(json.loads(line), f"{stem}-{number}", {}, 0):
                yield Row(row.id, row.payload, row.labels, where, row.error)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Row(f"{stem}-{number}", "", where=where, error=f"not JSON: {error}")
        number += 1


def parse_dictionary(text: str) -> "Structure":
    """The crystal of a dictionary as JSON or as Python prints it.

    Raises:
        ReadError: neither, or no crystal that is known.
    """
    try:
        loaded = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ReadError(f"neither JSON nor a dictionary of Python: {error}") from None
    found = list(_walk(loaded, "", {}, 0))
    if len(found) != 1 or found[0].error:
        raise ReadError(found[0].error if found else "expected a structure: got an empty object")
    payload = found[0].payload
    if isinstance(payload, str):
        raise ReadError("expected a structure: got text inside a dictionary")
    return structure_of(payload)


def structure_of(record: dict) -> "Structure":
    """The crystal of a dictionary of pymatgen, JARVIS, OPTIMADE or ASE.

    Raises:
        ReadError: partial occupancies, sites that are no elements, arrays that do not fit.
    """
    kind = _kind(record)
    try:
        if kind == "pymatgen":
            return _pymatgen(record)
        if kind == "JARVIS":
            frac = np.array(record["coords"], dtype=float).reshape(-1, 3)
            matrix = np.array(record["lattice_mat"], dtype=float)
            frac = _fractional(matrix, frac) if record.get("cartesian") else frac
            return _fitting(matrix, [str(e).strip() for e in record["elements"]], frac)
        if kind == "OPTIMADE":
            return _optimade(record)
        if kind == "ASE":
            matrix, positions = _array(record["cell"]), _array(record["positions"])
            return _fitting(matrix, _array(record["numbers"]).reshape(-1), _fractional(matrix, positions))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"cannot be read as a structure of {kind}: {type(error).__name__} {error}"[:300]
        ) from error
    raise ReadError(f"expected a structure of {', '.join(_KINDS)}: got keys {sorted(map(str, record))[:8]}")


def _kind(record: dict) -> str:
    return next((kind for kind, keys in _KINDS.items() if all(key in record for key in keys)), "")


def _walk(node: Any, name: str, outer: dict[str, float], depth: int) -> Iterator[Row]:
    """Structures anywhere below, with the name and the numbers of the nearest record around them."""
    if depth > _DEEPEST:
        yield Row(name, "", error="nested too deeply")
    elif isinstance(node, dict):
        yield from _walk_dictionary(node, name, outer, depth)
    elif isinstance(node, list):
        if depth and not _holds_crystal(node, depth):
            yield Row(name, "", error=f"no structure in a list of {len(node)}")
            return
        for index, child in enumerate(node):
            yield from _walk(child, f"{name}-{index}" if len(node) > 1 else name, outer, depth + 1)
    elif isinstance(node, str) and _is_text(node):
        yield Row(name, node, outer)
    else:
        yield Row(name, "", error=f"expected a structure: got {type(node).__name__}")


def _walk_dictionary(node: dict, name: str, outer: dict[str, float], depth: int) -> Iterator[Row]:
    own = own_name(node, name)
    if _kind(node) == "pymatgen" or (_kind(node) and "key_value_pairs" not in node):
        numbers = {} if _kind(node) == "pymatgen" else labels(node)
        yield Row(own, node, {**outer, **numbers})
    elif _kind(node):  # a row of an ASE database in JSON
        given = node["key_value_pairs"] if isinstance(node["key_value_pairs"], dict) else {}
        yield Row(own_name(given, own), node, labels({**node, **given}))
    elif isinstance(node.get("attributes"), dict) and _kind(node["attributes"]) == "OPTIMADE":
        yield Row(own, node["attributes"], labels(node["attributes"]))
    elif {"columns", "data"} <= set(node) and isinstance(
        node["data"], list
    ):  # a pandas table, orient "split"
        names = node.get("index") or range(len(node["data"]))
        for key, values in zip(names, node["data"], strict=False):
            record = (
                dict(zip(map(str, node["columns"]), values, strict=False)) if isinstance(values, list) else {}
            )
            yield from _walk(record, own_name(record, str(key)), {}, depth + 1)
    elif "ids" in node and "nextid" in node:  # an ASE database in JSON
        for key in node["ids"] if isinstance(node["ids"], list) else []:
            yield from _walk(node.get(str(key)), f"{name}-{key}", {}, depth + 1)
    else:
        texts = [key for key in TEXT_NAMES if isinstance(node.get(key), str | dict)]
        numbers = {**outer, **labels(node)}
        if texts and isinstance(node[texts[0]], str):
            yield Row(own, node[texts[0]], numbers)
        elif texts:
            yield from _walk(node[texts[0]], own, numbers, depth + 1)
        else:
            branches = [key for key, value in node.items() if _holds_crystal(value, depth)]
            if not branches:
                keys = f"got keys {list(node)[:8]}"
                yield Row(own, "", error=f"expected a structure or a key {', '.join(TEXT_NAMES)}: {keys}")
            for key in branches:
                named = isinstance(node[key], dict) and (depth == 0 or len(branches) > 1)
                below = (str(key) if depth == 0 else f"{own}-{key}") if named else own
                yield from _walk(node[key], below, {}, depth + 1)


def _holds_crystal(node: Any, depth: int) -> bool:
    """Whether a structure is to be expected somewhere below: lists of plain values are skipped whole."""
    if depth > _DEEPEST:
        return False
    if isinstance(node, dict):
        if _kind(node) or any(isinstance(node.get(key), str) for key in TEXT_NAMES):
            return True
        if {"columns", "data"} <= set(node):
            return any(_holds_crystal(value, depth + 1) for value in node["data"][:3])
        return any(_holds_crystal(value, depth + 1) for value in node.values())
    if isinstance(node, list):
        return any(_holds_crystal(value, depth + 1) for value in node)
    return isinstance(node, str) and _is_text(node)


def _is_text(text: str) -> bool:
    return "_cell_length_a" in text


def _pymatgen(record: dict) -> "Structure":
    lattice = record["lattice"]
    if "matrix" in lattice:
        cell = np.array(lattice["matrix"], dtype=float)
    else:
        cell = np.array([lattice[key] for key in ("a", "b", "c", "alpha", "beta", "gamma")], dtype=float)
    sites = record["sites"]
    _refuse_many(len(sites))
    elements = [_only([(s["element"], s["occu"]) for s in site["species"]]) for site in sites]
    return crystal(cell, elements, np.array([site["abc"] for site in sites], dtype=float).reshape(-1, 3))


def _optimade(record: dict) -> "Structure":
    matrix = np.array(record["lattice_vectors"], dtype=float)
    content = {
        s["name"]: list(zip(s["chemical_symbols"], s.get("concentration") or [1.0], strict=True))
        for s in record.get("species") or []
    }
    for name, parts in content.items():
        if any(symbol in ("X", "vacancy") for symbol, _ in parts):
            raise ReadError(f"partial occupancies or unknown atoms in species {str(name)[:20]!r}")
    names = record["species_at_sites"]
    _refuse_many(len(names))
    elements = [_only(content[name]) if content else name for name in names]
    positions = np.array(record["cartesian_site_positions"], dtype=float)
    return _fitting(matrix, elements, _fractional(matrix, positions))


def _only(parts: list[tuple[str, float]]) -> str:
    """The element of a site that is fully occupied by one."""
    amounts: dict[str, float] = {}
    for symbol, amount in parts:
        if not amount > 0:
            raise ReadError(f"expected occupancies in (0, 1]: got {amount} of {str(symbol)[:20]}")
        amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
    if len(amounts) != 1 or abs(sum(amounts.values()) - 1) > 0.01:
        raise ReadError("partial occupancies")
    return next(iter(amounts))


def _fitting(matrix: np.ndarray, elements: Any, frac: np.ndarray) -> "Structure":
    if len(elements) != len(frac):
        raise ReadError(
            f"expected a position per atom: got {len(elements)} elements and {len(frac)} positions"
        )
    return crystal(matrix, elements, frac)


def _fractional(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    _refuse_many(len(positions))
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise ReadError("a cell without volume")
    return np.linalg.solve(matrix.T, positions.reshape(-1, 3).T).T


def _refuse_many(n: int) -> None:
    if n > MAX_ATOMS:
        raise ReadError(f"{n} atoms: expected {MAX_ATOMS} at most")


def _array(value: Any) -> np.ndarray:
    """An array of ASE's JSON: plain lists, or in a dictionary under ``__ndarray__`` or ``array``."""
    if isinstance(value, dict) and "array" in value:
        value = value["array"]
    if isinstance(value, dict) and "__ndarray__" in value:
        shape, _, values = value["__ndarray__"]
        return np.array(values, dtype=float).reshape(shape)
    return np.array(value, dtype=float)
