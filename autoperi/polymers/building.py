"""Many polymers built one by one: read, written to a journal, gone on with, written to a folder."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from autoperi.data.files import crystal_of_record, crystal_record, save_crystals
from autoperi.polymers.crystal import PolymerCrystal, polymer_crystals
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

HOMOPOLYMERS = Path(__file__).with_name("homopolymers.csv")
"""Well-known homopolymers by name, SMILES of repeat unit and, where it is known, helix."""


@dataclass(frozen=True)
class Polymer:
    """What is to be built.

    Attributes:
        name: begins the ids of its crystals.
        smiles: of a repeat unit.
        helix: units and turns, such as 15/7, where the helix is known.
    """

    name: str
    smiles: str
    helix: str = ""


@dataclass(frozen=True)
class Built:
    """What came of a polymer.

    Attributes:
        polymer: what was to be built.
        crystals: the lowest first; empty where there is a fault.
        fault: why there are none.
        seconds: on the clock.
    """

    polymer: Polymer
    crystals: list[PolymerCrystal]
    fault: str
    seconds: float

    def record(self) -> dict[str, Any]:
        """As plain values."""
        crystals = [{**vars(one), "crystal": crystal_record(one.crystal)} for one in self.crystals]
        return {
            "polymer": asdict(self.polymer),
            "crystals": crystals,
            "fault": self.fault,
            "seconds": self.seconds,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Built":
        """As it was."""
        crystals = [
            PolymerCrystal(
                **{**one, "crystal": crystal_of_record(one["crystal"]), "base": tuple(one["base"])}
            )
            for one in record["crystals"]
        ]
        return cls(Polymer(**record["polymer"]), crystals, record["fault"], record["seconds"])


def read_polymers(given: Sequence[str]) -> list[Polymer]:
    """Polymers of SMILES and of tables (.csv: columns name, smiles and, if need be, helix).

    Raises:
        FileNotFoundError: no such table.
        PolymerError: a table without these columns, or no repeat unit at all; the text is of the first.
    """
    found: list[Polymer] = []
    for text in given:
        if not text.lower().endswith(".csv"):
            found.append(Polymer(text, text))
            continue
        table = pd.read_csv(text, dtype=str, keep_default_na=False)
        if missing := {"name", "smiles"} - set(table.columns):
            raise PolymerError(
                f"expected columns name and smiles in {text}: got no {' and no '.join(sorted(missing))}"
            )
        helices = table["helix"] if "helix" in table else [""] * len(table)
        found += [Polymer(*row) for row in zip(table["name"], table["smiles"], helices, strict=True)]
    first = "nothing was given"
    for polymer in reversed(found):
        try:
            RepeatUnit.of(polymer.smiles)
        except PolymerError as error:
            first = str(error)
        else:
            return found
    raise PolymerError(first)


def built(polymers: Sequence[Polymer], journal: Path) -> Iterator[Built]:
    """Build polymers in their order; what the journal holds of them is taken from there."""
    done = {b.polymer: b for b in _read(journal)}
    for polymer in polymers:
        if polymer not in done:
            began = time.perf_counter()
            crystals, fault = [], ""
            try:
                crystals = polymer_crystals(polymer.name, polymer.smiles, polymer.helix)
            except PolymerError as error:
                fault = str(error)
            done[polymer] = Built(polymer, crystals, fault, round(time.perf_counter() - began, 2))
            with journal.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(done[polymer].record()) + "\n")
        yield done[polymer]


def _read(journal: Path) -> Iterator[Built]:
    """What a journal holds; a line that was cut off is made whole by building its polymer again."""
    if not journal.exists():
        return
    text = journal.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        journal.write_text(text, encoding="utf-8")
    for line in text.splitlines():
        yield Built.of_record(json.loads(line))


def save(found: Sequence[Built], folder: Path) -> dict[str, Any]:
    """Write `save_crystals`'s files and ``polymers.csv``, a row a crystal, into an empty folder.

    Returns:
        For the run's record: what `save_crystals` gives, polymers, and failures as (name, SMILES, reason).
    """
    rows = [
        {"polymer": b.polymer.name, **one.row(), "seconds": b.seconds} for b in found for one in b.crystals
    ]
    pd.DataFrame(rows).to_csv(folder / "polymers.csv", index=False)
    written = save_crystals([one.crystal for b in found for one in b.crystals], folder)
    return {**written, "polymers": len(found), "failures": failures(found)}


def failures(found: Sequence[Built]) -> list[tuple[str, str, str]]:
    """Polymers without a crystal as (name, SMILES, reason)."""
    return [(b.polymer.name, b.polymer.smiles, b.fault) for b in found if b.fault]
