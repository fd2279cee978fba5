"""Framework types held out by their code, in five parts: which are found again, by type and by gene.

Run: python scripts/checks/zeolites.py 0 1 2 3 4 --n 200 --seed 0 --out zeolites     (needs AUTOPERI_DATA)
Part k holds out the tenths 2k and 2k + 1 of the codes (`autoperi.data.download.fold`); the tenth after them
is watched in training. Part 0 is the split that the shipped weights have learned from; others are
trained by the same recipe, and kept in the folder as what is drawn is.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import tyro

import autoperi
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.data.download import SPLITS, dataset_file, fold
from autoperi.generator import PRETRAINED
from evaluation.classes import zeolite

_TENTHS = 10
_COLUMNS = (
    "part",
    "nets learned from",
    "drawn",
    "nets refused for each (most)",
    "valid",
    "valid and novel",
    "types held out, found again",
    "genes held out, found again",
)


def main(
    parts: tyro.conf.Positional[tuple[int, ...]], n: int = 200, seed: int = 0, out: Path = Path("zeolites")
) -> None:
    """Train where need be, draw, compare; a row for each part."""
    everything = CrystalDataset.joined([load_dataset("zeolites", split, progress=False) for split in SPLITS])
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for part in parts:
        hidden, watched = (2 * part, 2 * part + 1), (2 * part + 2) % _TENTHS
        checkpoint = "zeolite" if part == 0 else str(_trained(out / str(part), hidden, watched))
        folder = out / str(part) / "drawn"
        asked = ["--n", str(n), "--seed", str(seed), "--workers", "1", "--out", str(folder)]
        _autoperi("sample", "--checkpoint", checkpoint, *asked)
        print(f"| {part} | {_row(checkpoint, everything, hidden, watched, folder)} |", flush=True)


def _trained(folder: Path, hidden: tuple[int, ...], watched: int) -> Path:
    """Checkpoint of the shipped recipe, trained without the tenths that are hidden."""
    codes = pd.read_csv(dataset_file("zeolites", "train"))
    tenth = codes["framework"].map(fold)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    codes[tenth == watched].to_csv(data / "val.csv", index=False)
    codes[~tenth.isin([*hidden, watched])].to_csv(data / "train.csv", index=False)
    recipe = (PRETRAINED / "zeolite" / "recipes" / "zeolite.toml").read_text()
    own = folder / "recipe.toml"
    own.write_text(recipe.replace('data = "zeolites"', f'data = "{data.resolve()}"'))
    _autoperi("train", "--config", str(own), "--out", str(folder / "run"))
    return folder / "run" / "checkpoint"


def _autoperi(*asked: str) -> None:
    """A command, whose status is 1 where rows or draws are left out."""
    status = subprocess.call([sys.executable, "-m", "autoperi.cli", *asked], stdout=sys.stderr)
    if status > 1:
        raise SystemExit(status)


def _row(
    checkpoint: str, everything: CrystalDataset, hidden: tuple[int, ...], watched: int, folder: Path
) -> str:
    generator, crystals = autoperi.load(checkpoint), autoperi.read_crystals(folder)
    tenths = [fold(str(name)) for name in everything.ids]
    learned, seen, unseen = (
        everything.select([i for i, tenth in enumerate(tenths) if own(tenth)])
        for own in (
            lambda tenth: tenth not in (*hidden, watched),
            lambda tenth: tenth not in hidden,
            lambda tenth: tenth in hidden,
        )
    )
    labels = {label for label in _types(seen) if label}
    types: dict[str, list[str]] = {}  # some types share a label
    for label, name in zip(_types(unseen), unseen.ids, strict=True):
        if label and label not in labels:
            types.setdefault(label, []).append(str(name))
    verdicts = [zeolite.judge(crystal.to_structure()) for crystal in crystals]
    again = sorted("/".join(types[label]) for label in {v.identity for v in verdicts} & set(types))
    known = {crystal.gene for crystal in generator.seen(seen)}
    genes = {crystal.gene for crystal in generator.seen(unseen)} - known
    found = {str(crystal.provenance["net"]) for crystal in crystals} & genes
    refused = [int(crystal.provenance["refused"]) for crystal in crystals]
    trained = {label for label in _types(learned) if label}
    novel = sum(v.valid and v.identity not in trained for v in verdicts)
    return " | ".join(
        [
            str(len(generator.seen(learned))),
            str(len(crystals)),
            f"{sum(refused) / len(crystals):.1f} ({max(refused)})",
            str(sum(v.valid for v in verdicts)),
            str(novel),
            f"{len(again)} of {len(types)}: {', '.join(again) or 'none'}",
            f"{len(found)} of {len(genes)}",
        ]
    )


def _types(frameworks: CrystalDataset) -> list[str]:
    """Labels of framework types; empty for what is no framework or too large to be told."""
    return [zeolite.judge(crystal.to_structure()).identity for crystal in frameworks]


if __name__ == "__main__":
    tyro.cli(main)
