"""Structure prediction where only the formula is known, on MP-20 test: shares that match, with 95% intervals.

Run: python scripts/checks/structure_prediction.py --out runs/csp --n 1000 --relaxed 200
     python scripts/checks/structure_prediction.py --out runs/csp_atoms --atoms
     python scripts/checks/structure_prediction.py --out runs/csp_52 --data mpts_52 --n 500

Protocol. Random crystals of the test split, each by its reduced formula; templates are all crystals of MP-20
train with that anonymous formula, those of the formula itself too (rows tell both kinds apart: a formula in
train has another crystal there, as no crystal of test is one of train; so what is known has no precedence,
other than in `autoperi csp`). A candidate counts for a crystal that
it matches (StructureMatcher, stol .5, ltol .3, angle 10); several crystals of one formula get the same
candidates. METRe and cRMSE (arXiv:2509.12178) allow as many answers of a formula as it has crystals. Of
MPTS-52 only crystals that are not in MP-20 train; formula units beyond 20 atoms count as not matched.
"""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
import tyro
from pymatgen.core import Structure

import autoperi
from autoperi.data.dataset import load_dataset
from autoperi.discovery import CellRequest, Proposals, predict
from autoperi.discovery.candidates import reduced
from autoperi.discovery.ranker import load
from autoperi.discovery.templates import reduced_amounts
from evaluation.metrics.prediction import match_everyone, metre_metrics
from evaluation.metrics.reconstruction import CDVAE_MATCH


def main(
    out: Path,
    data: str = "mp_20",
    n: int = 1000,
    relaxed: int = 0,
    prior: int = 0,
    atoms: bool = False,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Predict n test crystals, some of them with energies too, some by the learned prior alone.

    Args:
        out: keeps candidates and relaxations, so that a run goes on where it stood.
        data: data set whose test split is predicted.
        n: crystals.
        relaxed: of them, whose candidates are relaxed and ranked with energies.
        prior: of them, for which the learned prior told the composition answers alone, 20 draws.
        atoms: whether the number of atoms in the primitive cell is given.
        seed: chooses the crystals.
        workers: processes that relax and match.
    """
    torch.set_num_threads(1)
    generator = autoperi.load()
    proposals = Proposals(generator, load())
    ids = set(proposals.templates.relatives.ids)
    test = load_dataset(data, "test")
    fresh = [i for i in range(len(test)) if data == "mp_20" or str(test.ids[i]) not in ids]
    chosen = np.random.default_rng(seed).choice(fresh, min(n, len(fresh)), replace=False)
    truths = [test[int(i)] for i in chosen]
    most = generator.config.genes.n_max
    asked = {truth.formula: truth for truth in truths}
    groups: dict[int | None, list[str]] = defaultdict(list)
    keys = [(truth.formula, truth.n_atoms if atoms else None) for truth in truths]
    for (formula, size), truth in zip(keys, truths, strict=True):
        unit = sum(reduced_amounts(truth).values())
        if unit <= most and (size or 0) <= most and formula not in groups[size]:
            groups[size].append(formula)
    some = set(keys[:relaxed])
    answers: dict[str, dict[tuple, list[Structure]]] = {"no energy": {}, "relaxed": {}}
    for size, formulas in sorted(groups.items(), key=lambda item: item[0] or 0):
        cell = CellRequest(atoms=size)
        for name, folder in (("no energy", "plain"), ("relaxed", "relaxed")):
            own = [f for f in formulas if name == "no energy" or (f, size) in some]
            if own:
                place = out / f"{folder}_{size or 'any'}"
                place.mkdir(parents=True, exist_ok=True)
                relax = name == "relaxed"
                found = predict(
                    generator,
                    own,
                    20,
                    cell=cell,
                    relax=relax,
                    known_first=False,
                    ranker=proposals.ranker,
                    workers=workers,
                    folder=place,
                )
                for one in found:
                    answers[name][one.formula, size] = [c.to_structure() for c in one.crystals]
    known = np.array(
        [bool(proposals.templates.exchanges(reduced_amounts(truth)).known.any()) for truth in truths]
    )
    print(f"{data} test, n {len(truths)}, seed {seed}, atoms {'given' if atoms else 'not given'}")
    print(f"formulas in train: {known.mean():.1%}; {len(set(keys))} of {len(asked)} formulas asked")
    nearest = [_nearest(proposals, truth, key[1]) for truth, key in zip(truths, keys, strict=True)]
    _table("nearest template", nearest, truths, known)
    for name, found in answers.items():
        part = slice(None if name == "no energy" else relaxed)
        own = [found.get(key, []) for key in keys[part]]
        if own:
            _table(f"ranked, {name}", own, truths[part], known[part])
            _metre(f"ranked, {name}", found, keys[part], truths[part], workers)
    if prior:
        drawn = [
            _drawn(generator, truth, key[1], seed) for truth, key in zip(truths[:prior], keys, strict=False)
        ]
        _table("learned prior alone", drawn, truths[:prior], known[:prior])


def _nearest(proposals: Proposals, truth: autoperi.Crystal, size: int | None) -> list[Structure]:
    found = proposals.templates.exchanges(reduced_amounts(truth), atoms=size)
    firsts = np.unique(found.gene, return_index=True)[1][:20].tolist()
    relatives = proposals.templates.relatives
    return [relatives.renamed(int(found.row[k]), found.elements(k)).to_structure() for k in firsts]


def _drawn(
    generator: autoperi.CrystalGenerator, truth: autoperi.Crystal, size: int | None, seed: int
) -> list[Structure]:
    request = CellRequest(atoms=size).request_of(truth.formula)
    try:
        genes = generator.learned_genes().sample(range(20), seed, request)
    except ValueError:  # nothing has that formula
        return []
    return [crystal.to_structure() for crystal in generator.draw(genes, seed)]


def _table(
    name: str, answers: list[list[Structure]], truths: list[autoperi.Crystal], known: np.ndarray
) -> None:
    """Shares of crystals matched by the first answers."""
    matcher = CDVAE_MATCH.matcher()
    hits = np.zeros((len(truths), 20), dtype=bool)
    errors = []
    for row, own, truth in zip(hits, answers, truths, strict=True):
        target = reduced(truth.to_structure())
        for k, answer in enumerate(map(reduced, own[:20])):
            if len(answer) == len(target):
                row[k] = matcher.fit(answer, target, skip_structure_reduction=True)
        if row[0] and (distance := matcher.get_rms_dist(own[0], target)):
            errors.append(distance[0])
    best = np.maximum.accumulate(hits, axis=1)
    shares = [f"best of {k} {_share(best[:, k - 1])}" for k in (1, 5, 10, 20)]
    print(
        f"{name:24s} n {len(truths)}: {'  '.join(shares)}  RMSE of the first {np.mean(errors):.4f}",
        flush=True,
    )
    for word, rows in (("in train", known), ("not in train", ~known)):
        shares = f"first {_share(best[rows, 0])}, best of 20 {_share(best[rows, 19])}"
        print(f"{'':24s} formula {word}, n {rows.sum()}: {shares}")


def _share(hits: np.ndarray) -> str:
    """In percent, with Wilson's interval."""
    n, p, z = max(len(hits), 1), float(np.mean(hits)) if len(hits) else 0.0, 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return f"{p:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _metre(name: str, found: dict, keys: list[tuple], truths: list[autoperi.Crystal], workers: int) -> None:
    """As many answers of a formula as it has crystals."""
    samples = [answer for key, count in Counter(keys).items() for answer in found.get(key, [])[:count]]
    references = [truth.to_structure() for truth in truths]
    for metric in metre_metrics(match_everyone(samples, references, workers=workers)):
        if metric.name in ("metre", "crmse"):
            print(f"{name:24s} {metric.name} {metric.value:.4f} {metric.unit} of {metric.n}")


if __name__ == "__main__":
    tyro.cli(main)
