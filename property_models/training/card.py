"""MODEL_CARD.md of a property checkpoint."""

from pathlib import Path

from autoperi.training.model_card import curve_table
from property_models.model import PropertyModel
from property_models.networks.targets import TARGETS


def model_card(model: PropertyModel, member: Path) -> str:
    """MODEL_CARD.md of a checkpoint: what it is, what it saw, how good it is, what it is not for.

    Args:
        model: as loaded.
        member: folder of the logs of one of its networks, whose curve is shown.
    """
    config = model.ensemble.config
    figures = dict(model.about["figures"])
    for target, row in model.about["figures of the first network alone"].items():
        figures[f"{target}, `fast`"] = row
    names = sorted({key for row in figures.values() for key in row}, key=lambda k: (k != "n", k))
    lines = [
        f"# {model.name or config.family}",
        "",
        f"Predicts {', '.join(model.targets)}: {config.members} networks, convolution "
        f"`{config.network.convolution}`, family `{config.family}`"
        + (", correcting the shipped potential's energies." if config.potential else "."),
        "",
        "## Held-out figures",
        "",
        "| target | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for target, row in figures.items():
        cells = [f"{row[k]:.4g}" if k in row else "" for k in names]
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    units = "; ".join(f"{t} {TARGETS[t].unit}" for t in model.targets if t in TARGETS)
    lines += ["", f"Units: {units or 'those of the training table'}.", "", "## Provenance", ""]
    lines += [f"- {key}: {value}" for key, value in model.about.items() if not key.startswith("figures")]
    lines += ["", "## Curve of the first network", "", "On held-out crystals, averaged weights; errors in"]
    lines += ["working units (log10 where learned so).", "", curve_table(member)]
    limits = _CORRECTING if config.potential else _RELAXED
    return "\n".join([*lines, "", "## Limits", "", limits, _CHOICE, ""])


_RELAXED = """\
Learned from crystals relaxed by density-functional theory: unrelaxed, strained or hypothetical ones may be
flagged `out_of_domain`, and their values mean little."""
_CORRECTING = """\
Unrelaxed crystals are given the energy that they relax to with their symmetry kept. What CHGNet, teacher of
the shipped potential, has learned from includes MP-20 test: figures there flatter what corrects that
potential, those on WBM do not."""
_CHOICE = "A model that has guided a choice must not judge it."
