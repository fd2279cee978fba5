"""Ids as lines, names of files and cells: safe, and no two alike."""

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoperi.data.names import counted, file_names, one_line, unique_ids, with_formulas, without_formulas

AWKWARD = ["a/b", "a_b", "a_b-2", "A_B", "", "..", "../x", "é" * 200, "é" * 201, "x" * 300, "a\nb", "a\rb"]
AWKWARD += [
    "a\u2028b",
    "<b>",
    "[/x]",
    "=1+1",
    "NaCl (1)",
    'say "x"',
    "a\\b",
    "\x1b[31mred",
    "\udcff",
    "crystal-00004",
]


def test_names_that_would_fall_together_are_numbered():
    assert file_names(["a/b", "a_b", "a_b-2"]) == ["a_b-3", "a_b", "a_b-2"]
    assert file_names(["x", "X", "x"]) == ["x", "X-2", "x-3"]
    assert file_names(["plain-0.5_+é"]) == ["plain-0.5_+é"]


@given(st.lists(st.one_of(st.text(max_size=200), st.sampled_from(AWKWARD))))
def test_every_name_is_safe_and_alone(ids):
    names = file_names(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert 0 < len(name.encode()) <= 120
        assert "/" not in name
        assert not name.startswith(".")
        assert name == one_line(name)


@given(st.lists(st.one_of(st.text(max_size=5), st.sampled_from(AWKWARD))))
def test_ids_are_made_unique_and_unique_ones_stay(ids):
    made = unique_ids(ids)
    assert len(set(made)) == len(ids)
    assert all(name and name == one_line(name) for name in made)
    assert unique_ids(made) == made
    for before, after in zip(ids, made, strict=True):
        if before and ids.count(before) == 1 and before.isprintable():
            assert before == after or one_line(before) in map(one_line, ids)


def test_repeated_ids_do_not_take_the_name_of_another():
    assert unique_ids(["x", "x", "x-2", "", "x"]) == ["x", "x-3", "x-2", "crystal-00003", "x-4"]


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\u2028b", "a\x85b", "\x1b[31mred\x07", "\udcff", "a\x00b"]
)
def test_one_line_obeys_nothing(text):
    line = one_line(text)
    assert line.splitlines() == [line]
    assert line.isprintable()
    line.encode()
    assert one_line("NaCl (1) é 中 =") == "NaCl (1) é 中 ="


def test_no_text_is_a_formula_and_numbers_stay_numbers():
    table = pd.DataFrame({"id": ["=1+1", "@x", "-1+2", "+A", "-1.5", "'=y", "plain"], "energy": [-1.0] * 7})
    text = without_formulas(table).to_csv(index=False)
    cells = [line.split(",") for line in text.splitlines()[1:]]
    assert [name for name, _ in cells] == ["'=1+1", "'@x", "'-1+2", "'+A", "-1.5", "''=y", "plain"]
    assert {energy for _, energy in cells} == {"-1.0"}


def test_kinds_of_columns_stay():
    table = pd.DataFrame({"id": ["=1", None], "steps": pd.array([3, None], "Int64"), "ok": [True, False]})
    table["text"] = pd.array(["=2", None], "string")
    safe = without_formulas(table)
    assert safe.dtypes.tolist() == table.dtypes.tolist()
    assert safe.to_csv(index=False).splitlines()[1:] == ["'=1,3,True,'=2", ",,False,"]
    pd.testing.assert_frame_equal(with_formulas(safe), table)


@given(st.lists(st.text(alphabet="=+-@'1x ,\"", min_size=1, max_size=4), min_size=1))
def test_texts_of_a_table_come_back(ids):
    text = without_formulas(pd.DataFrame({"id": ids, "n": 1})).to_csv(index=False)
    back = with_formulas(pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False))
    assert back["id"].tolist() == ids


def test_many_are_counted_and_few_named():
    assert counted([], "left out") == "0 left out"
    assert counted(["a", "b\n"], "left out") == "2 left out (a, b )"
    assert counted(list("abcde"), "left out") == "5 left out (a, b, c, …)"
