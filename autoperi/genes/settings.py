"""How genes and species are drawn: plain numbers, so that nothing heavy is imported to name them."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class DrawConfig:
    """How choices are made from the gene network's logits.

    Attributes:
        new_genes: share of crystals whose gene (space group and letters) is drawn until it is none of the
            training set's; the others, by default all, take the first gene that comes, which is new as often
            as the network has learned.
        temperature: of the species; below 1 favours likely chemistry.
        sweeps: rounds in which a random half of the drawn species is hidden and drawn again given the
            rest (block Gibbs): corrects early choices in the light of later ones.
        batch_size: crystals per call of the gene network; does not change the result.
    """

    new_genes: float = 0.0
    temperature: float = 1.0
    sweeps: int = 1
    batch_size: Annotated[int, arg(name="gene-batch-size")] = 256

    def __post_init__(self) -> None:
        if not (0 <= self.new_genes <= 1 and 0 <= self.sweeps <= 1000 and self.batch_size >= 1):
            raise ValueError(
                f"expected new_genes from 0 to 1, sweeps from 0 to 1000 and batch_size >= 1: got {self}"
            )
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"expected a temperature above zero: got {self.temperature}")
