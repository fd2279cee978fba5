"""The hull that crystals are measured against: DFT phases, the potential's own, or a table of one's own."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pymatgen.core import Composition

from autoperi.data.element_references import ElementReferences
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import AseRelaxer
from evaluation.stability.consistent_hull import consistent_hull, known_phases
from evaluation.stability.hull import ConvexHull

_WORDS = {
    "mp_20": "labelled MP-20 rows, all splits",
    "consistent": "MP-20 rows, all splits, at DFT geometry by the same potential",
}


@dataclass(frozen=True)
class HullChoice:
    """The phases of the hull, and the element references that go with a potential.

    Attributes:
        phases: `mp_20` (DFT formation energies of every labelled row), `consistent` (the same crystals by
            the potential that relaxes, so that its errors cancel) or a CSV table with the columns
            `composition` and `formation_energy_per_atom` (eV/atom).
        references: JSON file of `ElementReferences.save`; None are those shipped for the potential, fitted on
            MP-20.
        sha256: of the files named, so that results kept for other contents are not taken for these.
    """

    phases: str = "mp_20"
    references: Path | None = None
    sha256: str = ""

    @classmethod
    def of(cls, phases: str = "mp_20", references: Path | None = None) -> "HullChoice":
        """A choice whose files are there.

        Raises:
            FileNotFoundError: when the table or the references do not exist; the message names the choices.
        """
        named = ([] if phases in _WORDS else [Path(phases)]) + ([references] if references else [])
        digest = hashlib.sha256()
        for path in named:
            if not path.is_file():
                raise FileNotFoundError(f"no hull {path}: give {', '.join(_WORDS)} or an existing file")
            digest.update(path.read_bytes())
        return cls(phases, references, digest.hexdigest()[:12] if named else "")

    def __str__(self) -> str:
        """As printed beside every figure."""
        words = _WORDS.get(
            self.phases, f"table {Path(self.phases).name} (SHA-256 {self.sha256 or 'not taken'})"
        )
        fitted = "fitted on MP-20" if self.references is None else f"of {self.references.name}"
        others = " for elements without a phase" if self.phases == "consistent" else ""
        return f"{words}, element references {fitted}{others}"


def load_hull(
    choice: HullChoice,
    data_dir: Path | str | None,
    targets: Iterable[Composition | str],
    relaxer: BatchRelaxer | AseRelaxer = CHGNET,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> tuple[ConvexHull, ElementReferences]:
    """The hull, and the references that turn the potential's energies into formation energies on it.

    Args:
        choice: which.
        data_dir: folder of the data sets, see `dataset_file`; a table of one's own does not need it.
        targets: compositions that will be judged.
        relaxer: the potential.
        cache_dir: folder that keeps the energies of phases, for `consistent`.
        progress: whether a bar shows how many of these are done.

    Raises:
        ValueError: when a potential of one's own comes without references fitted to it, or the table has
            other columns or unreadable rows.
        FileNotFoundError: when the data set is not there.
    """
    if choice.references is not None:
        references = ElementReferences.load(choice.references)
    elif isinstance(relaxer, BatchRelaxer):
        references = relaxer.references()
    else:
        raise ValueError(
            f"no element references for {relaxer.name}: fit them (element_references.fit_on_mp20), save "
            "them and name the file as HullChoice.references; those of another would shift every energy"
        )
    if choice.phases == "mp_20":
        return ConvexHull.from_mp20(data_dir), references
    if choice.phases != "consistent":
        return ConvexHull.from_table(choice.phases), references
    name = re.sub(r"[^A-Za-z0-9.]+", "-", relaxer.name)
    kept = Path(cache_dir) / f"phases-{name}.jsonl" if cache_dir else None
    return consistent_hull(
        *known_phases(data_dir), targets, references, relaxer.static_energies, kept, progress
    )
