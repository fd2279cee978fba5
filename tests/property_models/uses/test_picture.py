import numpy as np

from property_models.uses.picture import steered_distributions


def test_steered_distributions_count_crystals_without_a_value_as_missed():
    """A panel for each value and way; its title tells the share of hits."""
    values = {
        (value, way): np.array([value, value + 0.2, value + 1.0, np.nan])
        for value in (1.3, 4.0)
        for way in ("plain", "guided", "chosen")
    }
    figure = steered_distributions(values, np.array([0.0, 0.0, 1.5]), 0.3, "band gap (eV)")
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6
    assert titles[0] == "asked 1.3, plain: 50%"
    assert titles[-1] == "asked 4, chosen: 50%"
    behind, front = (path.get_path().vertices[:, 1] for path in figure.axes[0].patches[1:])
    assert behind.max() > front.max() > 0.2
