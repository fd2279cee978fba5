import json

import pandas as pd
import pytest
from ase.calculators.lj import LennardJones

from autoperi.data.element_references import ElementReferences
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import AseRelaxer
from evaluation.stability import consistent_hull
from evaluation.stability.hull_choice import HullChoice, load_hull
from tests.evaluation.crystals import diamond, rocksalt

PHASES = {"NaCl": rocksalt(), "Na": diamond("Na", 6.0), "Cl2": diamond("Cl", 6.5), "MgO": rocksalt("Mg", "O")}


@pytest.fixture
def mp20(tmp_path):
    """A small data folder in the layout of MP-20."""
    (tmp_path / "mp_20").mkdir()
    for split, names in {"train": ["NaCl", "MgO"], "val": ["Na"], "test": ["Cl2"]}.items():
        cifs = [PHASES[n].to(fmt="cif") for n in names]
        rows = pd.DataFrame({"material_id": names, "pretty_formula": names, "cif": cifs})
        rows["formation_energy_per_atom"] = [{"NaCl": -2.1, "MgO": -3.0}.get(n, 0.0) for n in names]
        rows.to_csv(tmp_path / "mp_20" / f"{split}.csv.gz", index=False)
    return tmp_path


def write_table(path, energy=-2.0):
    table = pd.DataFrame({"composition": ["NaCl"], "formation_energy_per_atom": [energy]})
    table.to_csv(path, index=False)
    return path


def test_every_choice_gives_a_hull(mp20, tmp_path, monkeypatch):
    dft, references = load_hull(HullChoice(), mp20, ["NaCl"])
    assert dft.hull_energy("NaCl") == pytest.approx(-2.1)
    assert references == ElementReferences.load()
    own, _ = load_hull(HullChoice.of(str(write_table(tmp_path / "own.csv"))), "nowhere", ["NaCl"])
    assert own.hull_energy("NaCl") == pytest.approx(-2.0)
    monkeypatch.setattr(BatchRelaxer, "static_energies", lambda _, s: iter([-3.0 - len(s)] * len(s)))
    same, references = load_hull(HullChoice("consistent"), mp20, ["NaCl"])
    assert same.n_phases == 3  # not MgO
    assert references.energies["Na"] == references.energies["Cl"] == -6.0


def test_the_choice_is_named_and_follows_the_content_of_its_table(tmp_path):
    assert str(HullChoice()) == "labelled MP-20 rows, all splits, element references fitted on MP-20"
    assert "by the same potential" in str(HullChoice("consistent"))
    first = HullChoice.of(str(write_table(tmp_path / "own.csv")))
    assert first.sha256 in str(first)
    assert "own.csv" in str(first)
    second = HullChoice.of(str(write_table(tmp_path / "own.csv", -1.0)))
    assert first != second
    with pytest.raises(FileNotFoundError, match="no hull mp20: give mp_20, consistent or an existing file"):
        HullChoice.of("mp20")


def test_another_potential_needs_references_of_its_own(mp20, tmp_path):
    relaxer = AseRelaxer("Lennard-Jones", LennardJones)
    with pytest.raises(ValueError, match="no element references for Lennard-Jones"):
        load_hull(HullChoice(), mp20, ["NaCl"], relaxer)
    ElementReferences({"Na": -0.5, "Cl": -0.25}).save(tmp_path / "lj.json")
    choice = HullChoice.of("mp_20", tmp_path / "lj.json")
    _, references = load_hull(choice, mp20, ["NaCl"], relaxer)
    assert references.energies["Na"] == -0.5
    assert "element references of lj.json" in str(choice)


def test_energies_of_phases_are_computed_once_and_a_killed_run_goes_on(mp20, tmp_path, monkeypatch):
    asked = []

    def energies(_, structures):
        for structure in structures:
            if len(asked) == 2:
                asked.append("killed")
                raise KeyboardInterrupt
            asked.append(structure.composition.reduced_formula)
            yield float("nan") if asked[-1] == "NaCl" else -2.0

    monkeypatch.setattr(BatchRelaxer, "static_energies", energies)
    choice, kept = HullChoice("consistent"), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        load_hull(choice, mp20, ["NaCl"], cache_dir=kept)
    (file,) = kept.iterdir()
    assert "CHGNet" in file.name
    assert [json.loads(line)["energy"] for line in file.read_text().splitlines()] == [None, -2.0]
    for _ in range(2):
        hull, references = load_hull(choice, mp20, ["NaCl"], cache_dir=kept)
    assert asked == ["NaCl", "Na", "killed", "Cl2"]
    assert references.energies["Na"] == -2.0
    assert hull.n_phases == 2
    load_hull(choice, mp20, ["MgO"], cache_dir=kept)
    assert asked[-1] == "MgO"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0].replace('"energy"', '"lost"'), *lines[1:]]))
    load_hull(choice, mp20, ["NaCl"], cache_dir=kept)
    assert asked[-2:] == ["MgO", "NaCl"]
    with pytest.warns(UserWarning, match="set AUTOPERI_CACHE"):
        load_hull(choice, mp20, ["NaCl"], cache_dir=file)


def test_a_hull_of_other_phases_does_not_take_the_kept_energies(tmp_path):
    kept = tmp_path / "kept.jsonl"
    references = ElementReferences({"Na": -1.0, "Cl": -1.0})
    for formulas, energy in ((["NaCl"], -3.0), (["NaCl", "Na"], -4.0)):
        phases = [PHASES[f] for f in formulas]
        hull, _ = consistent_hull.consistent_hull(
            formulas, phases.__getitem__, ["NaCl"], references, lambda s, e=energy: iter([e] * len(s)), kept
        )
        assert hull.hull_energy("NaCl") < -1
    assert len(kept.read_text().splitlines()) == 3
