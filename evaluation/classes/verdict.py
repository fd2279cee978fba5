"""What the rules of a class say of one crystal."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """What the rules of a class say of one crystal.

    Attributes:
        fault: the first rule that is broken, in words; empty for a crystal of the class.
        numbers: measured on the way, by name; those of valid crystals are averaged in a report.
        identity: a label that two crystals share if and only if they are the same for this class; empty
            where geometry decides.
    """

    fault: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    identity: str = ""

    @property
    def valid(self) -> bool:
        """Whether no rule is broken."""
        return not self.fault
