import pytest

from evaluation.report.published import published_tables


def test_every_row_fills_its_columns_and_names_its_source():
    tables = published_tables()
    assert len({(t.title, t.source) for t in tables}) == len(tables)
    for table in tables:
        assert table.source
        assert table.protocol
        assert all(len(values) == len(table.columns) for values in table.rows.values())


def test_per_cent_become_fractions_and_ranges_are_left_out():
    symmetry = next(t for t in published_tables() if "WyFormer" in t.source)
    own = symmetry.metrics("MatterGen (MP-20)")
    assert own["sun_wyformer"].value == pytest.approx(0.554)
    assert own["sun_wyformer"].low is None
    assert "CHGNet" in own["sun_wyformer"].protocol
    assert "dft_sun" not in own


def test_shares_are_shares():
    for table in published_tables():
        for model in table.rows:
            for name, metric in table.metrics(model).items():
                assert metric.value >= 0
                if f"{name} %" in table.columns:
                    assert metric.value <= 1
