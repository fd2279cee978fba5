"""report.html as a reader meets it: opened in headless Chromium, sorted, its crystals drawn, offline."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from evaluation import EvaluationSettings, Reference, evaluate
from evaluation.metric import BootstrapSettings
from evaluation.reading.readers import Failure, ReadResult, as_read_result
from evaluation.report.benchmark import BenchmarkSettings, benchmark
from evaluation.report.page import scenes
from tests.evaluation.crystals import rutile, zoo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]

# Runs inside the page after its own script; what it finds is read from the dumped document.
PROBE = """
<script>{
const text = (cell) => cell.dataset.value ?? cell.textContent;
const column = (table, k) => [...table.tBodies[0].rows].map((r) => text(r.cells[k]));
const found = {}, metrics = document.querySelector("table.metrics"), rows = document.getElementById("rows");
const heading = metrics.tHead.rows[0].cells[1];
found.before = column(metrics, 1);
heading.click();
found.up = column(metrics, 1);
heading.click();
found.down = column(metrics, 1);
rows.tHead.rows[0].cells[[...rows.tHead.rows[0].cells].findIndex((c) => c.textContent === "density")].click();
found.ids = column(rows, 0);
document.getElementById("filter").value = "TiO";
document.getElementById("filter").dispatchEvent(new Event("input"));
found.filtered = [...rows.tBodies[0].rows].filter((r) => !r.hidden).length;
const colours = (canvas) => {
  const pen = canvas.getContext("2d"), seen = new Set();
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let k = 0; k < pixels.length; k += 4) seen.add(pixels.slice(k, k + 4).join());
  return seen.size;
};
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
found.errors = window.failures;
setTimeout(() => {
  found.thumbnails = [...document.querySelectorAll("#gallery canvas")].map(colours);
  found.requests = performance.getEntriesByType("resource").map((e) => e.name.slice(0, 60));
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}, 500);
}</script></body>"""
PROBE_COMPARISON = """
<script>{
const table = document.getElementById("comparison"), heading = table.tHead.rows[0].cells[1];
const names = () => [...table.tBodies[0].rows].slice(1).map((r) => r.cells[0].textContent);
const found = { before: names() };
heading.click();
found.up = names();
heading.click();
found.down = names();
found.titles = [...table.tBodies].map((body) => body.rows[0].classList.contains("group"));
found.errors = window.failures;
const out = document.createElement("pre");
out.id = "found";
out.textContent = JSON.stringify(found);
document.body.append(out);
}</script></body>"""
CATCH = "<script>window.failures = []; window.onerror = (m) => window.failures.push(String(m));</script>"

IN_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH to open report.html with")


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


def opened(page: str, probe: str, folder: Path) -> dict:
    """What a script at the end of a page finds in headless Chromium, the page's errors among it."""
    file, log = folder / "probed.html", folder / "net.json"
    file.write_text(page.replace("<style>", CATCH + "<style>", 1).replace("</body>", probe, 1))
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--virtual-time-budget=5000",
        "--window-size=1300,2400",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, done.stderr[-2000:]
    # The browser's own calls home (which fail here) are the only ones in its log.
    hosts = set(re.findall(r'"(?:url|original_url)":\s*"(?:https?|wss?)://([^/"]*)', log.read_text()))
    assert not [host for host in hosts if not host.endswith((".google.com", ".googleapis.com"))]
    return json.loads(unescape(text.group(1)))


@IN_A_BROWSER
def test_in_a_browser_tables_sort_and_crystals_turn_without_a_request(report_folder, tmp_path):
    found = opened((report_folder / "report.html").read_text(), PROBE, tmp_path)
    assert found["errors"] == []
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
    assert len(found["thumbnails"]) == 6
    assert min(found["thumbnails"]) > 50
    assert not [name for name in found["requests"] if not name.startswith("data:")]


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
