import pandas as pd
import pytest

from evaluation.facts.description import description_table
from evaluation.facts.reference import Reference
from evaluation.metric import BootstrapSettings
from evaluation.metrics.breadth import breadth_columns, breadth_metrics
from tests.evaluation.crystals import diamond, rocksalt, zoo

QUICK = BootstrapSettings(resamples=20, resamples_distance=5)


def measured(samples):
    reference = Reference.from_structures(zoo())
    table = description_table(samples)
    table["unique"] = True
    table = table.join(breadth_columns(table, reference))
    return table, {m.name: m for m in breadth_metrics(table, reference, "zoo", QUICK)}


def test_a_set_against_itself_is_all_known():
    _, metrics = measured(zoo())
    for name in ("formula", "anonymous_formula", "prototype"):
        assert metrics[f"new_{name}_share"].value == 0
    for name in ("space_group", "gene", "prototype", "chemical_system"):
        assert metrics[f"{name}_coverage"].value == 1
        assert metrics[f"{name}_coverage"].denominator == "reference crystals"
    assert metrics["element_jensen_shannon"].value == pytest.approx(0, abs=1e-7)
    assert metrics["space_group_chi_square"].value == pytest.approx(0)
    for name in ("element_jensen_shannon", "space_group_chi_square"):
        assert metrics[name].floor > 0.05
    assert metrics["unique_structures"].value == len(zoo())
    assert metrics["distinct_genes"].value == 5  # two of the six are rock salts


def test_new_chemistry_in_a_known_prototype():
    table, metrics = measured([rocksalt("K", "Br", 6.6), diamond("Ge", 5.66), diamond("C", 3.57)])
    assert metrics["new_formula_share"].value == 1
    assert metrics["new_prototype_share"].value == 0
    assert metrics["distinct_prototypes"].value == 2
    assert metrics["gene_coverage"].value == pytest.approx(3 / 6)
    assert table["chemical_system"].tolist() == ["Br-K", "Ge", "C"]
    assert metrics["distinct_chemical_systems"].value == 3
    assert metrics["chemical_system_coverage"].value == 0
    assert metrics["element_jensen_shannon"].value == pytest.approx(1)
    assert table["anonymous_formula"].tolist() == ["1:1", "1", "1"]


def test_nothing_is_described_as_nothing():
    _, metrics = measured([])
    assert metrics["hhi_production"].n == 0
    assert metrics["unique_structures"].value == 0
    assert pd.isna(metrics["new_formula_share"].value)
