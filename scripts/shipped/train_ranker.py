"""Train the ranker of `autoperi csp` and put it beside a checkpoint; every step goes on where it stood.

Run: python scripts/shipped/train_ranker.py --out runs/ranker --into autoperi/pretrained/mp_20/ranker

Genes are ranked by what training crystals say of one another, each left out of its own templates. How likely
a candidate matches (StructureMatcher, stol .5, ltol .3, angle 10) is learned from crystals of val, to which
all training crystals are templates, those of the same formula too; test is not touched. Only the first
``relaxed`` formulas are relaxed (CHGNet, space group kept), their first ``first`` candidates each.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from pymatgen.core import Structure
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import autoperi
from autoperi.crystals.crystal import Crystal
from autoperi.data.cache import written_whole
from autoperi.data.dataset import load_dataset
from autoperi.data.files import crystal_of_record, crystal_record
from autoperi.data.reading import Sample
from autoperi.discovery.candidates import Proposals, reduced
from autoperi.discovery.ranker import (
    CandidateRanker,
    ExchangeBatch,
    Facts,
    GeneRanker,
    energy_inputs,
    plain_inputs,
    save,
)
from autoperi.discovery.relaxed import RELAXATION
from autoperi.discovery.templates import Templates, gene_with_species, reduced_amounts
from evaluation.metrics.reconstruction import CDVAE_MATCH
from evaluation.relaxation.batch import BatchSettings, relax_all
from evaluation.relaxation.journal import append, read_journal

BATCH, RATES, DECAY = 128, (1.5e-2, 3e-3), (1e-4, 0.02)
"""Formulas together; learning rate and weight decay of the elements' distances and of all else."""


def main(
    out: Path,
    into: Path,
    train: int = 20000,
    epochs: int = 10,
    val: int = 1500,
    relaxed: int = 200,
    first: int = 12,
    workers: int = 1,
    seed: int = 0,
) -> None:
    """Train on random crystals of MP-20."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator, ranker = autoperi.load(), CandidateRanker()
    relatives = generator.relatives()
    assert relatives is not None
    ranker.genes = _genes(Templates(relatives), out, train, epochs, seed)
    proposals = Proposals(generator, ranker.eval())
    held_out = load_dataset("mp_20", "val")
    chosen = np.random.default_rng(seed).choice(len(held_out), min(val, len(held_out)), replace=False)
    truths = [held_out[int(i)] for i in chosen]
    labelled = list(_labelled(proposals, truths, out / "candidates.jsonl", seed))
    found = {"plain": _fitted(ranker, labelled, energies=False)}
    energetic = _with_energies(labelled[:relaxed], truths, first, out, workers)
    found["relaxed"] = _fitted(ranker, energetic, energies=True)
    data = f"train {train}, val {val}, relaxed {relaxed} x {first}"
    about = {"data": data, "seed": seed, "five-fold": found}
    save(ranker, into, about)
    print(json.dumps(found, indent=1))


def _genes(templates: Templates, out: Path, train: int, epochs: int, seed: int) -> GeneRanker:
    """The network that ranks genes, trained on training crystals that are left out of their templates."""
    network, file = GeneRanker(), out / "genes.pt"
    if file.exists():
        network.load_state_dict(torch.load(file))
        return network.eval()
    exchanges, labels = [], []
    crystals = templates.relatives.crystals.to_crystals()
    for i in np.random.default_rng(seed).choice(len(crystals), min(train, len(crystals)), replace=False):
        crystal = crystals[i]
        found = templates.exchanges(reduced_amounts(crystal), skip=int(i))
        name = gene_with_species(crystal.space_group, crystal.wyckoff, crystal.species.tolist())
        firsts = np.unique(found.gene, return_index=True)[1].tolist()
        same = [gene for gene, k in enumerate(firsts) if templates.gene(found, k) == name]
        if same:
            exchanges.append(found)
            labels.append(same[0])
    batch, label = ExchangeBatch.of(exchanges, templates), torch.tensor(labels)
    distances = [network.embedding, network.weight]
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in zip((distances, list(network.head.parameters())), DECAY, strict=True)
    ]
    steps = epochs * (len(label) // BATCH)
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, list(RATES), total_steps=steps)
    began = time.perf_counter()
    for epoch in range(epochs):
        total = 0.0
        for part in torch.randperm(len(label)).split(BATCH)[: len(label) // BATCH]:
            loss = cross_entropy(network(batch.select(part)), label[part])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(label)
        print(f"genes, epoch {epoch}: loss {total:.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    with written_whole(file) as part:
        torch.save(network.state_dict(), part)
    return network.eval()


def _labelled(
    proposals: Proposals, truths: list[Crystal], journal: Path, seed: int
) -> Iterator[tuple[list[Facts], list[Crystal], list[bool]]]:
    """Candidates of the formula of each crystal, and whether each matches it."""
    done = {record["number"]: record for record in read_journal(journal)}
    for number, truth in enumerate(truths):
        if number not in done:
            try:
                found = proposals.of(reduced_amounts(truth), 20, seed, known_first=False)
            except ValueError:  # no gene has its formula
                found = []
            target = reduced(truth.to_structure())
            done[number] = {
                "number": number,
                "facts": [asdict(c.facts) for c in found],
                "crystals": [crystal_record(c.crystal) for c in found],
                "matches": [_match(c.crystal.to_structure(), target) for c in found],
            }
            append(journal, done[number])
            if number % 100 == 99:
                shares = [np.mean([any(done[i]["matches"][:k]) for i in range(number + 1)]) for k in (1, 20)]
                print(f"candidates, {number + 1}: first {shares[0]:.3f}, any {shares[1]:.3f}", flush=True)
        record = done[number]
        facts = [Facts(**one) for one in record["facts"]]
        yield facts, [crystal_of_record(one) for one in record["crystals"]], record["matches"]


def _match(structure: Structure, target: Structure) -> bool:
    """Whether a candidate matches a reduced crystal."""
    own = reduced(structure)
    alike = len(own) == len(target)
    return alike and bool(CDVAE_MATCH.matcher().fit(own, target, skip_structure_reduction=True))


def _with_energies(
    labelled: list[tuple[list[Facts], list[Crystal], list[bool]]],
    truths: list[Crystal],
    first: int,
    out: Path,
    workers: int,
) -> list[tuple[list[Facts], list[Crystal], list[bool]]]:
    """The first candidates of each formula relaxed, with their energies, and whether they match then."""
    flat = [(i, k) for i, (facts, _, _) in enumerate(labelled) for k in range(min(first, len(facts)))]
    samples = [Sample(f"{i}-{k}", labelled[i][1][k].to_structure()) for i, k in flat]
    energies: dict[tuple[int, int], float] = {}
    matches = [list(own) for _, _, own in labelled]
    settings = BatchSettings(RELAXATION, workers=workers)
    for done, record in enumerate(relax_all(samples, settings, out / "relaxations.jsonl"), 1):
        i, k = flat[record["number"]]
        if not record["error"]:
            energies[i, k] = record["energy_per_atom"]
            relaxed = Structure.from_dict(record["relaxed"])
            matches[i][k] = _match(relaxed, reduced(truths[i].to_structure()))
        if done % 200 == 0:
            print(f"relaxed {done} of {len(samples)}", flush=True)
    out_ = []
    for i, (facts, crystals, _) in enumerate(labelled):
        own = [energies.get((i, k)) for k in range(min(first, len(facts)))]
        known = [e for e in own if e is not None]
        told = [
            replace(f, above=None if e is None else e - min(known)) for f, e in zip(facts, own, strict=False)
        ]
        out_.append((told, crystals[: len(told)], matches[i][: len(told)]))
    return out_


@dataclass(frozen=True)
class _Inputs:
    """Candidates of many formulas: what the last networks read, whether each matches, and its formula."""

    plain: Tensor
    energies: Tensor | None
    matches: Tensor
    formula: Tensor

    def of(self, formulas: Tensor) -> "_Inputs":
        """Those of some formulas."""
        some = torch.isin(self.formula, formulas)
        energies = None if self.energies is None else self.energies[some]
        return _Inputs(self.plain[some], energies, self.matches[some], self.formula[some])


def _fitted(
    ranker: CandidateRanker,
    labelled: list[tuple[list[Facts], list[Crystal], list[bool]]],
    energies: bool,
    folds: int = 5,
) -> dict[str, float]:
    """Fit the last network; the share of first candidates that match is that of formulas left out."""
    some = [(facts, matches) for facts, _, matches in labelled if facts]
    inputs = _Inputs(
        torch.cat([plain_inputs(facts) for facts, _ in some]),
        torch.cat([energy_inputs(facts) for facts, _ in some]) if energies else None,
        torch.cat([torch.tensor(matches).float() for _, matches in some]),
        torch.cat([torch.full((len(facts),), i) for i, (facts, _) in enumerate(some)]),
    )
    formulas, right = torch.arange(len(some)), []
    for fold in range(folds):
        _fit(ranker, inputs.of(formulas[formulas % folds != fold]))
        with torch.no_grad():
            for i in formulas[fold::folds]:
                own = inputs.of(i[None])
                right.append(float(own.matches[ranker(own.plain, own.energies).argmax()]))
    _fit(ranker, inputs)
    first = [float(matches[0]) for _, matches in some]
    return {"n": len(some), "first": float(np.mean(first)), "ranked": float(np.mean(right))}


def _fit(ranker: CandidateRanker, inputs: _Inputs, steps: int = 400) -> None:
    """Cross-entropy of each candidate, and of the matching ones among those of their formula."""
    network = ranker.plain if inputs.energies is None else ranker.relaxed
    for layer in network.children():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    formulas, owner = inputs.formula.unique(return_inverse=True)
    right = inputs.matches > 0
    has = torch.zeros(len(formulas)).index_add(0, owner, inputs.matches) > 0
    for _ in range(steps):
        logits = ranker(inputs.plain, inputs.energies)
        chances = logits.clamp(-30, 30).exp()
        total, matching = (
            torch.zeros(len(formulas)).index_add(0, owner, chances * which)
            for which in (torch.ones(len(owner)), right.float())
        )
        among = (total[has].log() - matching[has].log()).sum()
        each = binary_cross_entropy_with_logits(logits, inputs.matches, reduction="sum") / 20
        optimiser.zero_grad()
        ((each + 0.2 * among) / len(formulas)).backward()
        optimiser.step()
        schedule.step()


if __name__ == "__main__":
    tyro.cli(main)
