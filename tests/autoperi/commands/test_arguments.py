from pathlib import Path

from autoperi.commands.arguments import Computing, asked
from autoperi.commands.relax import Relax, Relaxation
from autoperi.commands.train_property import TrainProperty


def test_what_decides_the_results_is_asked_and_the_rest_is_not():
    """Workers, device and places do not; the input goes by its content, a checkpoint by its hash."""
    one = asked(Relax(Path("a"), Path("out"), advanced=Computing(workers=2)), checkpoint="abc")
    assert one == asked(Relax(Path("b"), Path("other"), advanced=Computing(device="cuda")), checkpoint="abc")
    assert one != asked(Relax(Path("a"), Path("out"), relaxation=Relaxation(steps=3)), checkpoint="abc")
    assert (one["command"], one["checkpoint"], one["relaxation"]["fmax"]) == ("relax", "abc", 0.1)
    assert asked(TrainProperty(Path("a"), ("x",), Path("out")))["command"] == "train-property"
