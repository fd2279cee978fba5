"""report.html as a reader meets it: opened in headless Chromium, sorted, its crystals drawn, offline."""

import pytest

from autoperi.data.reading import Failure, ReadResult, as_read_result
from evaluation import EvaluationSettings, Reference, evaluate
from evaluation.metric import BootstrapSettings
from evaluation.report.benchmark import BenchmarkSettings, benchmark
from evaluation.report.page import scenes
from tests.browser import IN_A_BROWSER, opened
from tests.evaluation.crystals import rutile, zoo

PROBE = """
const text = (cell) => cell.dataset.value ?? cell.textContent;
const own = (table) => [...[...table.tBodies].at(-1).rows].filter((r) => !r.classList.contains("group"));
const column = (table, k) => own(table).map((r) => text(r.cells[k]));
const metrics = document.querySelector("table.metrics"), rows = document.getElementById("rows");
const heading = metrics.tHead.rows[0].cells[1];
found.before = column(metrics, 1);
found.groups = [...metrics.querySelectorAll("tr.group")].map((r) => r.textContent);
heading.click();
found.up = column(metrics, 1);
heading.click();
found.down = column(metrics, 1);
rows.tHead.rows[0].cells[[...rows.tHead.rows[0].cells].findIndex((c) => c.textContent === "density")].click();
found.ids = column(rows, 0);
document.getElementById("filter").value = "TiO";
document.getElementById("filter").dispatchEvent(new Event("input"));
found.filtered = [...rows.tBodies[0].rows].filter((r) => !r.hidden).length;
rows.tBodies[0].rows[0].click();
const large = document.querySelector("dialog canvas");
found.opened = document.querySelector("dialog").open;
found.large = colours(large);
const picture = () => large.toDataURL();
const first = picture();
large.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
found.turned = picture() !== first;
document.querySelector("dialog .cells").click();
found.legend = document.querySelector("dialog .legend").textContent;
later.push(() => (found.thumbnails = [...document.querySelectorAll("#gallery canvas")].map(colours)));
"""
PROBE_COMPARISON = """
const table = document.getElementById("comparison"), heading = table.tHead.rows[0].cells[1];
const names = () => [...table.tBodies[0].rows].slice(1).map((r) => r.cells[0].textContent);
found.before = names();
heading.click();
found.up = names();
heading.click();
found.down = names();
found.titles = [...table.tBodies].map((body) => body.rows[0].classList.contains("group"));
"""


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory):
    read = as_read_result(zoo())
    read = ReadResult(read.samples, (Failure("</script><b>bad", "torn & broken"),), "six <crystals>")
    settings = EvaluationSettings(bootstrap=BootstrapSettings(20, 5))
    report = evaluate(read, Reference.from_structures(zoo()), settings=settings)
    return report.save(tmp_path_factory.mktemp("report"))


def test_the_page_names_no_address_and_forbids_requests(report_folder):
    page = (report_folder / "report.html").read_text()
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "six &lt;crystals&gt;" in page
    assert "</script><b>bad" not in page


def test_scenes_are_evenly_spaced_when_there_are_too_many():
    samples = as_read_result([rutile()] * 50).samples
    assert [int(scene["id"]) for scene in scenes(samples, 6)] == [0, 10, 20, 29, 39, 49]
    assert len(scenes(samples[:3], 6)) == 3
    assert scenes((), 6) == []


@IN_A_BROWSER
def test_in_a_browser_tables_sort_and_crystals_turn_without_a_request(report_folder, tmp_path):
    found = opened((report_folder / "report.html").read_text(), PROBE, tmp_path)
    assert found["errors"] == []
    assert found["groups"] == ["validity", "novelty", "distribution", "symmetry"]
    values = [float(value) for value in found["before"]]
    assert [float(v) for v in found["up"]] == sorted(values)
    assert [float(v) for v in found["down"]] == sorted(values, reverse=True)
    assert values != sorted(values)
    assert found["ids"] == ["0", "3", "5", "2", "1", "4"]  # densities 2.17 to 5.68 g/cm³, NaCl first
    assert found["filtered"] == 2  # SrTiO3 and TiO2
    assert found["opened"]
    assert found["large"] > 100
    assert found["turned"]
    assert set(found["legend"]) >= set("Na")
    assert sorted(n > 50 for n in found["thumbnails"]) == [False] * 4 + [True] * 2  # the filtered ones


@IN_A_BROWSER
def test_in_a_browser_models_sort_within_their_kind(tmp_path):
    """A heading orders the models; published rows keep to themselves, below their title."""
    models = {"two": zoo()[:2], "all": zoo(), "four": zoo()[:4]}
    settings = BenchmarkSettings(EvaluationSettings(bootstrap=BootstrapSettings(20, 5)))
    benchmark(models, tmp_path, Reference.from_structures(zoo()), settings=settings)
    found = opened((tmp_path / "report.html").read_text(), PROBE_COMPARISON, tmp_path)
    assert found["errors"] == []
    assert found["before"] == ["two", "all", "four"]
    assert found["up"] == ["two", "four", "all"]
    assert found["down"] == ["all", "four", "two"]
    assert found["titles"] == [True, True]
