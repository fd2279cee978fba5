"""Elemental reference energies that turn the energies of a potential into formation energies.

The Materials Project's elemental energies leave CHGNet 0.3.0 biased by about -0.05 eV/atom on
MP-20. The references here are fitted so that CHGNet's own energies reproduce the DFT formation
energies of MP-20, and are stored with the residual they leave on crystals not fitted.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Composition, Element, Structure

if TYPE_CHECKING:
    from evaluation.relaxation.relaxation import AseRelaxer

DEFAULT_FILE = "chgnet_0.3.0_mp20_references.json"


@dataclass(frozen=True)
class FitSettings:
    """How the references are fitted.

    Attributes:
        n_train: MP-20 train rows used (those with a formation energy, drawn at random).
        n_val: MP-20 val rows on which the residual is reported.
        ridge: penalty on the squared distance of a reference from its prior value, relative to
            the squared error in eV/atom; keeps elements seen a few times near the prior.
        seed: of the random draw of rows.
    """

    n_train: int = 3000
    n_val: int = 400
    ridge: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class ElementReferences:
    """Reference energy of every element, and how well they do.

    Attributes:
        energies: element symbol -> eV/atom.
        provenance: potential, rows used, and the residual on held-out rows (`val_mae`,
            `val_bias` = mean of predicted minus DFT, eV/atom).
    """

    energies: Mapping[str, float]
    provenance: Mapping[str, object] = field(default_factory=dict)

    def formation_energy(self, composition: Composition | str, energy_per_atom: float) -> float:
        """Formation energy per atom, E/N - Σ x_el μ_el, in eV/atom.

        Raises:
            KeyError: when an element has no reference; the message names it.
        """
        fractions = Composition(composition).get_el_amt_dict()
        missing = sorted(set(fractions) - set(self.energies))
        if missing:
            raise KeyError(f"no reference energy for {missing}; known are {len(self.energies)}")
        total = sum(fractions.values())
        return energy_per_atom - sum(n / total * self.energies[el] for el, n in fractions.items())

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str | None = None) -> "ElementReferences":
        """Read a JSON file; by default the one shipped with this package."""
        source = files("evaluation.stability") / DEFAULT_FILE if path is None else Path(path)
        return cls(**json.loads(source.read_text()))


def fit_element_references(
    compositions: Sequence[Composition],
    energies_per_atom: np.ndarray,
    formation_energies: np.ndarray,
    prior: Mapping[str, float],
    ridge: float = FitSettings.ridge,
) -> ElementReferences:
    """Ridge regression of the references about a prior.

    Minimises Σ_i (E_i - x_i·μ - F_i)² + ridge·|μ - μ_prior|² over μ, with x_i the atomic fractions,
    E_i the potential's energies and F_i the DFT formation energies (all eV/atom).
    """
    symbols = sorted(prior, key=lambda s: Element(s).Z)
    column = {symbol: k for k, symbol in enumerate(symbols)}
    fractions = np.zeros((len(compositions), len(symbols)))
    for row, composition in enumerate(compositions):
        for symbol, fraction in composition.fractional_composition.get_el_amt_dict().items():
            fractions[row, column[symbol]] = fraction
    mu_prior = np.array([prior[symbol] for symbol in symbols])
    residual = np.asarray(energies_per_atom) - np.asarray(formation_energies)
    residual = residual - fractions @ mu_prior
    gram = fractions.T @ fractions + ridge * np.eye(len(symbols))
    mu = mu_prior + np.linalg.solve(gram, fractions.T @ residual)
    return ElementReferences({s: float(m) for s, m in zip(symbols, mu, strict=True)})


def fit_on_mp20(
    data_dir: Path | str, settings: FitSettings = FitSettings(), relaxer: "AseRelaxer | None" = None
) -> ElementReferences:
    """Fit on static energies at the DFT geometry of MP-20 train rows.

    Needs `mp_20/{train,val}.csv.gz` and `mp_hull_reference/element_energies.json` under `data_dir`;
    takes some minutes on one core.

    Args:
        data_dir: folder of the data sets.
        settings: which rows, and how.
        relaxer: the potential; None is CHGNet.
    """
    from evaluation.relaxation.potential import MODEL_NAME, static_energies

    name = f"CHGNet {MODEL_NAME}" if relaxer is None else relaxer.name
    energies_of = static_energies if relaxer is None else relaxer.static_energies
    folder = Path(data_dir)
    rng = np.random.default_rng(settings.seed)
    train = _energies(folder / "mp_20" / "train.csv.gz", settings.n_train, rng, energies_of)
    val = _energies(folder / "mp_20" / "val.csv.gz", settings.n_val, rng, energies_of)
    prior = json.loads((folder / "mp_hull_reference" / "element_energies.json").read_text())
    fitted = fit_element_references(*train, prior=prior, ridge=settings.ridge)
    error = np.array([fitted.formation_energy(c, e) - f for c, e, f in zip(*val, strict=True)])
    provenance = {
        "potential": f"{name}, static energies at DFT geometry",
        "target": "MP-20 formation_energy_per_atom (Materials Project, CC BY 4.0)",
        "n_train": len(train[0]),
        "n_val": len(val[0]),
        "ridge": settings.ridge,
        "seed": settings.seed,
        "val_mae": float(np.abs(error).mean()),
        "val_bias": float(error.mean()),
        "val_median_abs": float(np.median(np.abs(error))),
    }
    return ElementReferences(fitted.energies, provenance)


def _energies(
    csv: Path,
    n_rows: int,
    rng: np.random.Generator,
    energies_of: Callable[[Sequence[Structure]], Iterator[float]],
) -> tuple[list[Composition], np.ndarray, np.ndarray]:
    """Compositions, energies of the potential and DFT formation energies of random labelled rows."""
    import pandas as pd
    from rich.progress import track

    table = pd.read_csv(csv)
    table = table[table["formation_energy_per_atom"].notna()]
    chosen = rng.choice(len(table), size=min(n_rows, len(table)), replace=False)
    table = table.iloc[chosen]
    structures = [Structure.from_str(text, fmt="cif") for text in table["cif"]]
    energies = np.array(list(track(energies_of(structures), total=len(structures), description=csv.name)))
    known = np.isfinite(energies)
    compositions = [s.composition for s, ok in zip(structures, known, strict=True) if ok]
    targets = table["formation_energy_per_atom"].to_numpy(dtype=float)
    return compositions, energies[known], targets[known]


if __name__ == "__main__":
    import sys

    fitted_references = fit_on_mp20(sys.argv[1])
    fitted_references.save(Path(__file__).parent / DEFAULT_FILE)
    print(fitted_references.provenance)
