"""Generators of frameworks draw nets of tetrahedral sites: what is asked and made of these."""

from collections.abc import Sequence
from dataclasses import replace

from autoperi.crystals.crystal import Crystal
from autoperi.flow.steering import Guide
from autoperi.frameworks.net import FrameworkError, framework
from autoperi.generator.choice import Keep, judged
from autoperi.generator.config import GeneratorConfig
from autoperi.generator.delivery import misfit
from autoperi.generator.geometry import Descent
from autoperi.genes.request import GeneRequest


def net_request(request: GeneRequest, guide: Guide | None, descent: Descent | None) -> GeneRequest:
    """What a request for a framework asks of its net, which has a third of the atoms.

    Raises:
        ValueError: elements or a formula are asked for, or an energy of whole crystals is to lead.
    """
    if request.constrains_species:
        raise ValueError("expected no elements and no formula: what is drawn are frameworks of SiO2")
    if guide is not None or descent is not None:
        raise ValueError(
            "expected neither physics nor several tries: frameworks are drawn as nets of silicon, of which "
            "an energy means nothing; relax what is drawn (autoperi relax)"
        )
    if request.n_atoms is None:
        return request
    low, high = -(-request.n_atoms[0] // 3), request.n_atoms[1] // 3
    if high < low:
        raise ValueError(f"expected a number of atoms that three divides: got {request.n_atoms}")
    return replace(request, n_atoms=(low, high))


def refuse_nets(config: GeneratorConfig) -> None:
    """Raise ValueError for a generator of frameworks where whole crystals are needed, atom by atom."""
    if config.sites != "all":
        raise ValueError(
            "expected a checkpoint that draws every atom, such as mp_20: got one of frameworks, which knows "
            "their tetrahedral sites alone"
        )


def completing(request: GeneRequest, keep: Keep | None) -> Keep:
    """Makes frameworks of nets, refuses what is none or not as asked for, then what ``keep`` refuses."""
    asked = replace(request, gene=None)  # that is of the net, and met

    def made(nets: Sequence[Crystal]) -> list[Crystal | str]:
        found = [_made(net, asked) for net in nets]
        good = [crystal for crystal in found if isinstance(crystal, Crystal)]
        told = iter(judged(good, keep) if keep and good else good)
        return [crystal if isinstance(crystal, str) else next(told) for crystal in found]

    return made


def _made(net: Crystal, request: GeneRequest) -> Crystal | str:
    try:
        crystal = framework(net)
    except FrameworkError as error:
        return f"a net is no framework: {error}"
    return crystal if request.fits(crystal) else misfit(net, crystal)
