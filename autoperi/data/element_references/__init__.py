"""Reference energies of the elements, which turn the energies of a potential into formation energies.

The Materials Project's elemental energies leave CHGNet 0.3.0 biased by about -0.05 eV/atom on MP-20. The
references here are fitted so that CHGNet's own energies reproduce the DFT formation energies of MP-20, and
are stored with the residual they leave on crystals not fitted. Every room uses these.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pymatgen.core import Composition, Element

SHIPPED = Path(__file__).with_name("chgnet_0.3.0_mp_20.json")
"""CHGNet's, fitted on MP-20."""


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
    def load(cls, path: Path | str = SHIPPED) -> "ElementReferences":
        """Read a JSON file; by default CHGNet's, shipped with this package."""
        return cls(**json.loads(Path(path).read_text()))


def fit_element_references(
    compositions: Sequence[Composition],
    energies_per_atom: np.ndarray,
    formation_energies: np.ndarray,
    prior: Mapping[str, float],
    ridge: float,
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
