"""Formulas as they are asked for: from words or a file, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import chemical_symbols
from pymatgen.core import Composition

from autoperi.crystals.crystal import any_element_in_formulas
from autoperi.discovery.candidates import CellRequest
from autoperi.generator import CrystalGenerator

_NAMED = 3
"""Wrong formulas that an error names."""


@dataclass(frozen=True)
class Formula:
    """A reduced formula.

    Attributes:
        name: as pymatgen writes it.
        amounts: atoms per formula unit by atomic number.
        asked: what was asked for, which may be some formula units: C60.
    """

    name: str
    amounts: dict[int, int]
    asked: str


def read_formulas(words: Sequence[str]) -> list[str]:
    """Formulas of a command line: a word that is a file stands for the formulas in it, one a line.

    Empty lines and what follows a # do not count.

    Raises:
        ValueError: a file without formulas.
    """
    found: list[str] = []
    for word in words:
        if not Path(word).is_file():
            found.append(word)
            continue
        lines = Path(word).read_text(encoding="utf-8").splitlines()
        formulas = [text for line in lines if (text := line.partition("#")[0].strip())]
        if not formulas:
            raise ValueError(f"expected formulas in {word}, one a line: got none")
        found += formulas
    return found


@any_element_in_formulas()
def checked(formulas: Sequence[str], generator: CrystalGenerator, cell: CellRequest) -> list[Formula]:
    """Formulas by element; raises ValueError that names what no crystal of the checkpoint can have."""
    if not formulas:
        raise ValueError("expected at least one formula, e.g. BaTiO3: got none")
    names: dict[str, str] = {}
    out, wrong = [], []
    for text in formulas:
        try:
            amounts = cell.request_of(text).amounts()
            assert amounts is not None
            named = Composition({chemical_symbols[z]: n for z, n in amounts.items()}).reduced_formula
            if named in names:
                raise ValueError(f"expected each formula once, it is {names[named]!r} too")
            _refuse_sizes(sum(amounts.values()), generator.config.genes.n_max, cell.atoms)
        except ValueError as error:
            wrong.append(f"{text!r}: {error}")
            continue
        names[named] = text
        out.append(Formula(named, amounts, text))
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError("; ".join(wrong[:_NAMED]) + more)
    return out


def _refuse_sizes(unit: int, most: int, atoms: int | None) -> None:
    if unit > most:
        raise ValueError(
            f"expected at most {most} atoms in a formula unit, as many as the checkpoint's primitive cells "
            f"have: got {unit}"
        )
    if atoms is not None and (atoms % unit or not 1 <= atoms <= most):
        raise ValueError(
            f"expected a number of atoms (--atoms) that is a multiple of {unit} and at most {most}: got "
            f"{atoms}"
        )
