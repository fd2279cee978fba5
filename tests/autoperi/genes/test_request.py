import pytest

from autoperi.genes.request import GeneRequest


def test_names_are_understood():
    request = GeneRequest(formula="Ti2Ba2O6", crystal_system="cubic", n_atoms=(1, 10))
    assert request.amounts() == {22: 1, 56: 1, 8: 3}
    assert request.ratios() == (3, 1, 1)
    assert request.groups() == tuple(range(195, 231))
    assert request.permitted().nonzero()[0].tolist() == [8, 22, 56]
    assert GeneRequest(anonymous_formula="A2B2C6").ratios() == (3, 1, 1)
    assert GeneRequest(chemical_system="Ba-Ti-O").system() == {8, 22, 56}
    assert GeneRequest(gene="221:cba").positions() == GeneRequest(gene="221:abc").positions()
    assert hash(GeneRequest(space_groups=[225, 221])) == hash(GeneRequest(space_groups={221, 225}))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"space_groups": [0, 231]}, r"1 to 230: got \[0, 231\]"),
        ({"space_groups": []}, "none at all"),
        ({"crystal_system": "cubical"}, "among .*'cubic'.*: got 'cubical'"),
        ({"crystal_system": "cubic", "space_groups": [62]}, "no space group satisfies"),
        ({"gene": "225:zz"}, "Wyckoff letters a-l"),
        ({"gene": "225:aa"}, "used once"),
        ({"gene": "abc"}, "got 'abc'"),
        ({"gene": "225:ab", "space_groups": [221]}, "no space group satisfies"),
        ({"formula": "Xx2O"}, r"got \['Xx'\]"),
        ({"formula": "Li0.5O"}, "whole numbers"),
        ({"formula": "D2O"}, "isotopes"),
        ({"formula": ""}, "got ''"),
        ({"anonymous_formula": "AA2"}, "each letter once"),
        ({"anonymous_formula": "AB0"}, "at least one atom"),
        ({"formula": "NaCl", "anonymous_formula": "AB2"}, "not of the type"),
        ({"formula": "NaCl", "chemical_system": "Na-O"}, "not the elements"),
        ({"anonymous_formula": "ABC3", "chemical_system": "Na-O"}, "has 3 elements, 'Na-O' has 2"),
        ({"chemical_system": "Na-Foo"}, r"got \['Foo'\]"),
        ({"formula": "NaCl", "denied_elements": ["Cl"]}, r"\['Cl'\] are required but not permitted"),
        ({"formula": "NaCl", "allowed_elements": ["Na", "O"]}, r"\['Cl'\] are required"),
        ({"anonymous_formula": "ABC", "allowed_elements": ["Na", "O"]}, "at least 3 permitted"),
        ({"allowed_elements": ["Na"], "denied_elements": ["Na"]}, "got 0"),
        ({"allowed_elements": "Na"}, "collection"),
        ({"n_atoms": (5, 2)}, "fewest <= most"),
    ],
)
def test_wrong_or_contradictory_requests_are_refused_with_the_reason(fields, says):
    with pytest.raises(ValueError, match=says):
        GeneRequest(**fields)
