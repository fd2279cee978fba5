"""The model card of a trained checkpoint: what it learned from, how, for how long, with its curves."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from autoperi.training.fit import FitConfig

_ROWS = 12
"""Epochs shown of a longer curve."""


@dataclass(frozen=True)
class Trained:
    """One part of a checkpoint and how it came about.

    Attributes:
        name: of the stage.
        parameters: trained numbers.
        fit: its settings.
        folder: where the stage kept its logs.
    """

    name: str
    parameters: int
    fit: FitConfig
    folder: Path


def model_card(name: str, data: dict[str, str], start: str | None, parts: list[Trained]) -> str:
    """Markdown: provenance, settings that differ from the defaults, held-out curves of every part."""
    about = "\n".join(f"- {key}: {value}" for key, value in data.items())
    origin = f"Training started from the checkpoint {start}.\n\n" if start else ""
    table = "\n".join(f"| {p.name} | {p.parameters:,} | {_settings(p.fit)} |" for p in parts)
    curves = "\n\n".join(f"### {p.name}\n\n{curve_table(p.folder)}" for p in parts)
    return (
        f"# Model card: `{name}`\n\n{about}\n\n{origin}"
        f"| part | parameters | training |\n|---|---|---|\n{table}\n\n"
        "Validation split, averaged weights, means over the crystals watched; samples (where the curve has "
        "them) are drawn from genes of the validation split.\n\n"
        f"{curves}\n"
    )


def held_out_curve(folder: Path) -> pd.DataFrame:
    """Validation metrics by epoch over all starts of a stage; a repeated epoch counts as last logged."""
    logs = sorted((folder / "csv").glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name[8:]))
    if not logs:
        return pd.DataFrame()
    table = pd.concat([pd.read_csv(log) for log in logs], ignore_index=True)
    wanted = [c for c in table.columns if c.startswith(("val/", "sample/"))]
    table["epoch"] = table["epoch"].ffill()
    curve = table.dropna(subset=wanted, how="all").groupby("epoch")[wanted].last()
    return curve.set_index(curve.index.astype(int))


def curve_table(folder: Path) -> str:
    """The held-out curve of a stage as a Markdown table of a dozen rows, the last epoch among them."""
    curve = held_out_curve(folder)
    if curve.empty:
        return "Not trained here."
    sampled = [c for c in curve.columns if c.startswith("sample/")]
    shown = curve.dropna(subset=sampled, how="all") if sampled else curve
    step = max(1, len(shown) // _ROWS)
    shown = shown.iloc[::-1].iloc[::step].iloc[::-1]
    head = "| epoch | " + " | ".join(c.removeprefix("val/") for c in shown.columns) + " |"
    rows = [f"| {epoch} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for epoch, row in shown.iterrows()]
    return "\n".join([head, "|---" * (1 + len(shown.columns)) + "|", *rows])


def _settings(fit: FitConfig) -> str:
    if fit.epochs == 0:
        return "as in the checkpoint it started from"
    default = asdict(FitConfig())
    own = {k: v for k, v in asdict(fit).items() if k == "epochs" or v != default[k]}
    return ", ".join(f"{key} {value}" for key, value in own.items())
