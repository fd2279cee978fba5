from dataclasses import replace

import pytest
import torch

from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.ranker import (
    CandidateRanker,
    ExchangeBatch,
    Facts,
    GeneRanker,
    energy_inputs,
    load,
    plain_inputs,
    save,
)
from autoperi.discovery.templates import Templates
from autoperi.flow.relatives import Relatives
from autoperi.networks.checkpoint import CheckpointError

FORMULAS = ({19: 1, 35: 1}, {38: 1, 22: 1, 8: 3}, {22: 1, 8: 2})
FACTS = Facts(0.5, 0.7, 0.1, known=False, drawn=False, atoms=5, nearest=0.1)


@pytest.fixture(scope="module")
def templates(prototypes) -> Templates:
    """Prototypes as training crystals."""
    crystals = [replace(symmetrise(structure), id=name) for name, structure in prototypes.items()]
    return Templates(Relatives.from_crystals(crystals))


def test_a_formula_does_not_depend_on_its_company(templates):
    """Logits of a batch are those of each alone; where there is no gene there is no chance."""
    torch.manual_seed(0)
    network = GeneRanker().eval()
    exchanges = [templates.exchanges(formula) for formula in FORMULAS]
    together = network(ExchangeBatch.of(exchanges, templates)).softmax(dim=1)
    for own, some in zip(together, exchanges, strict=True):
        alone = network(ExchangeBatch.of([some], templates))[0].softmax(dim=0)
        genes = int(some.gene.max()) + 1
        assert torch.allclose(own[:genes], alone[:genes], atol=1e-5)
        assert own[genes:].sum() == 0


def test_unlike_elements_are_less_likely(templates):
    """The learned distance of an exchange is 0 where nothing is exchanged, and positive elsewhere."""
    network = GeneRanker()
    exchanges = templates.exchanges({11: 1, 17: 1})
    likeness = network.likeness(ExchangeBatch.of([exchanges], templates))[0]
    assert (likeness[torch.from_numpy(exchanges.known)].abs() < 1e-5).all()
    assert (likeness[torch.from_numpy(~exchanges.known)] < -1e-3).all()


def test_energies_are_read_where_there_are_some():
    """Candidates without energies are ranked by the network that reads none."""
    torch.manual_seed(0)
    ranker = CandidateRanker().eval()
    plain = [FACTS, replace(FACTS, chance=0.1)]
    energetic = [replace(one, above=0.05 * k) for k, one in enumerate(plain)]
    with torch.no_grad():
        assert torch.equal(plain_inputs(plain), plain_inputs(energetic))
        expected = ranker(plain_inputs(plain), energy_inputs(energetic)).double().sigmoid()
    assert ranker.probabilities(energetic) == pytest.approx(expected.tolist())
    assert ranker.probabilities(plain) != pytest.approx(expected.tolist())
    assert all(0 < p < 1 for p in ranker.probabilities([replace(plain[0], above=0.0), plain[1]]))
    assert len(ranker.probabilities([FACTS])) == 1


def test_weights_come_back(tmp_path):
    """To float16; a damaged file is refused."""
    ranker = CandidateRanker().eval()
    save(ranker, tmp_path, {"seed": 1})
    again = load(tmp_path)
    assert again.about["seed"] == 1
    assert again.probabilities([FACTS]) == pytest.approx(ranker.probabilities([FACTS]), abs=1e-2)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path)


def test_shipped_weights_are_small_and_sensible():
    """A near template with the votes of all is likelier than a far one; so is a low energy."""
    ranker = load()
    assert sum(p.numel() for p in ranker.parameters()) < 50_000
    near = Facts(0.9, 0.95, 0.03, known=False, drawn=False, atoms=5, nearest=0.03)
    far = replace(near, chance=0.02, support=0.02, distance=0.4)
    sure, unsure = ranker.probabilities([near, far])
    assert sure > 0.6
    assert unsure < 0.2
    half = replace(near, chance=0.45, support=0.45)
    low, high = ranker.probabilities([replace(half, above=0.0), replace(half, above=0.3)])
    assert low > high + 0.05
