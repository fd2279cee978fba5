"""Sample a few crystals, relax them with their symmetry kept, and show what changed.

Run: python scripts/relax.py --n 10
"""

import tyro

import autoperi
from evaluation.facts.symmetry import keeps_space_group, space_group
from evaluation.relaxation.relaxation import RelaxationSettings, Relaxed, relax_together


def main(n: int = 10, seed: int = 0, fmax: float = 0.1) -> None:
    """All together in one batch; each line is printed as soon as a crystal is done."""
    raw = {c.id: c.to_structure() for c in autoperi.load("mp_20").sample(n, seed)}
    settings = RelaxationSettings(fmax=fmax, keep_symmetry=True)
    for name, found in relax_together(raw.items(), settings):
        if not isinstance(found, Relaxed):
            print(f"{name} {raw[name].formula}: {found}")
            continue
        gained = 1000 * (found.start_energy_per_atom - found.energy_per_atom)
        kept = "kept" if keeps_space_group(raw[name], found.structure) else "lost"
        print(
            f"{name} {raw[name].reduced_formula:14s} {found.steps:4d} steps, {gained:8.1f} meV/atom gained, "
            f"volume {found.structure.volume / raw[name].volume - 1:+.1%}, "
            f"group {space_group(found.structure, settings.symprec)} {kept}"
        )


if __name__ == "__main__":
    tyro.cli(main)
