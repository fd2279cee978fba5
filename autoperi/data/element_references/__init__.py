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
SEVENNET_REFERENCES = Path(__file__).with_name("sevennet_l3i5_mp_20.json")
"""Those of SevenNet-l3i5, fitted on MP-20."""


@dataclass(frozen=True)
class ElementReferences:
    """Reference energy of every element, and how well they do.

    Attributes:
        energies: element symbol -> eV/atom.
        with_u: symbol of a metal -> eV per atom of it in a compound with oxygen or fluorine, for a potential
            that learned energies of the Materials Project as computed, where these metals have a Hubbard U
            and others have none (Jain et al., PRB 84, 045115, 2011); empty where it learned corrected ones.
        provenance: potential, rows used, and the residual on held-out rows (`val_mae`,
            `val_bias` = mean of predicted minus DFT, eV/atom).
    """

    energies: Mapping[str, float]
    with_u: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def formation_energy(self, composition: Composition | str, energy_per_atom: float) -> float:
        """Formation energy per atom, E/N - Σ x_el μ_el, in eV/atom; μ of a metal with U where it has one.

        Raises:
            KeyError: when an element has no reference; the message names it.
        """
        fractions = Composition(composition).get_el_amt_dict()
        missing = sorted(set(fractions) - set(self.energies))
        if missing:
            raise KeyError(f"no reference energy for {missing}; known are {len(self.energies)}")
        total = sum(fractions.values())
        added = self.with_u if _has_u(fractions) else {}
        references = {el: self.energies[el] + added.get(el, 0.0) for el in fractions}
        return energy_per_atom - sum(n / total * references[el] for el, n in fractions.items())

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
    with_u: Sequence[str] = (),
) -> ElementReferences:
    """Ridge regression of the references about a prior, and of the metals' terms with U about 0.

    Minimises Σ_i (E_i - x_i·μ - F_i)² + ridge·|μ - μ_prior|² over μ, with x_i the atomic fractions,
    E_i the potential's energies and F_i the DFT formation energies (all eV/atom).
    """
    symbols = sorted(prior, key=lambda s: Element(s).Z)
    column = {symbol: k for k, symbol in enumerate(symbols)}
    fractions = np.zeros((len(compositions), len(symbols) + len(with_u)))
    for row, composition in enumerate(compositions):
        amounts = composition.fractional_composition.get_el_amt_dict()
        for symbol, fraction in amounts.items():
            fractions[row, column[symbol]] = fraction
        if _has_u(amounts):
            fractions[row, len(symbols) :] = [amounts.get(metal, 0.0) for metal in with_u]
    mu_prior = np.array([prior[symbol] for symbol in symbols] + [0.0] * len(with_u))
    residual = np.asarray(energies_per_atom) - np.asarray(formation_energies)
    residual = residual - fractions @ mu_prior
    gram = fractions.T @ fractions + ridge * np.eye(len(mu_prior))
    mu = mu_prior + np.linalg.solve(gram, fractions.T @ residual)
    fitted, terms = mu[: len(symbols)].tolist(), mu[len(symbols) :].tolist()
    return ElementReferences(dict(zip(symbols, fitted, strict=True)), dict(zip(with_u, terms, strict=True)))


def _has_u(composition: Mapping[str, float]) -> bool:
    return "O" in composition or "F" in composition
