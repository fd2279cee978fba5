"""The gallery that `write_crystals` leaves in a folder, and what a notebook shows, in headless Chromium."""

import pickle
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from autoperi.crystals.crystal import Crystals
from autoperi.crystals.symmetry import symmetrise
from autoperi.crystals.viewer.page import MOST_SHOWN, crystal_scene, render_gallery, spaced
from autoperi.data.files import write_crystals
from tests.browser import IN_A_BROWSER, opened, shown
from tests.prototypes import prototype

NAMES = ["<img src=x onerror=alert(1)>", "$x_$ & 'b'", "c"]
GALLERY = """
const rows = document.getElementById("rows"), gallery = document.getElementById("gallery");
const ids = () => [...rows.tBodies[0].rows].map((row) => row.cells[0].textContent);
const cards = () => [...gallery.querySelectorAll("figcaption")].map((c) => c.textContent);
found.ids = ids();
found.links = [...rows.querySelectorAll("a")].map((a) => decodeURIComponent(a.getAttribute("href")));
found.images = document.querySelectorAll("img").length;
[...rows.tHead.rows[0].cells].find((cell) => cell.textContent === "volume per atom").click();
found.sorted = ids();
found.cards = cards();
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
gallery.querySelector("figure").click();
found.open = document.querySelector("dialog").open;
found.title = document.querySelector("dialog h3").textContent;
found.large = colours(document.querySelector("dialog canvas"));
document.querySelector("dialog .close").click();
later.push(() => (found.drawn = [...gallery.querySelectorAll("canvas")].filter(colours).length));
"""
ONE = """
found.title = document.querySelector("h3").textContent;
found.facts = document.querySelector("dl").textContent;
found.colours = colours(document.querySelector("canvas"));
"""


@pytest.fixture(scope="module")
def crystals():
    found = [symmetrise(prototype(name)) for name in ("NaCl", "Si diamond", "SrTiO3 perovskite")]
    return Crystals(
        replace(crystal, id=name, properties={"predicted_band_gap": gap})
        for crystal, name, gap in zip(found, NAMES, (5.0, 0.6, 1.9), strict=True)
    )


@pytest.fixture(scope="module")
def page(crystals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    write_crystals(crystals, folder, {})
    return folder / "index.html"


def framed(html):
    """The page inside a notebook's frame."""
    return unescape(re.search(r'srcdoc="([^"]*)"', html)[1])


def test_the_gallery_names_no_address_and_forbids_requests(page):
    text = page.read_text()
    assert "://" not in text
    assert "default-src 'none'" in text
    assert "<img" not in text


def test_of_ten_thousand_crystals_a_browser_gets_two_thousand(crystals, tmp_path):
    """Evenly spaced, each with its own facts; the page says that there are more, and stays below 4 MB."""
    drawn = crystal_scene("", crystals[2])
    rows = [{"id": str(k), "energy": -k / 7, "uncertainty": k / 3} for k in range(10_000)]
    page = render_gallery("many", "", rows, lambda k: {**drawn, "id": str(k)})
    (tmp_path / "index.html").write_text(page)
    pictures = shown(tmp_path / "index.html")
    assert len(pictures) == MOST_SHOWN
    assert {"0", "9999"} < set(pictures)
    assert all(p["facts"]["energy"] == pytest.approx(-int(k) / 7, rel=1e-4) for k, p in pictures.items())
    assert "2000 of 10000 crystals" in page
    assert len(page) < 4e6


def test_a_list_of_crystals_is_a_list(crystals):
    assert isinstance(crystals, list)
    assert crystals[0].id == NAMES[0]
    for again in (crystals[:2], pickle.loads(pickle.dumps(crystals))):
        assert type(again) is Crystals
    unknown = replace(crystals[0], species=np.zeros(2, dtype=int))
    assert unknown._repr_html_() is None
    assert Crystals([unknown])._repr_html_() is None
    assert Crystals()._repr_html_() is None


def test_crystals_shown_are_evenly_spaced_when_there_are_too_many():
    assert spaced(50, 6) == [0, 10, 20, 29, 39, 49]
    assert spaced(3, 6) == [0, 1, 2]
    assert spaced(0, 6) == []


@IN_A_BROWSER
@pytest.mark.parametrize("size", ["1300,1600", "500,900"])
def test_in_a_browser_the_gallery_sorts_opens_and_links(page, tmp_path, size):
    found = opened(page.read_text(), GALLERY, tmp_path, size)
    assert found["errors"] == []
    assert found["ids"] == NAMES
    assert found["images"] == 0
    assert all((page.parent / link).is_file() for link in found["links"])
    assert len(found["links"]) == 3
    assert found["sorted"] == NAMES[::-1]  # 11.9, 20.0 and 22.4 Å³
    assert found["cards"] == ["SrTiO3space group 221", "Sispace group 227", "NaClspace group 225"]
    assert found["wide"] <= 0
    assert found["open"]
    assert found["title"] == f"SrTiO3 {NAMES[2]}"
    assert found["large"] > 100
    assert found["drawn"] == 3


@IN_A_BROWSER
def test_in_a_browser_a_thousand_crystals_are_drawn_only_where_they_are_in_sight(crystals, tmp_path):
    many = [replace(crystals[k % 3], id=f"{k:04d}") for k in range(1000)]
    write_crystals(many, tmp_path / "many", {})
    page = (tmp_path / "many" / "index.html").read_text()
    assert len(page) < 2_000_000
    found = opened(page, GALLERY, tmp_path)
    assert found["errors"] == []
    assert len(found["ids"]) == 1000
    assert 6 <= found["drawn"] <= 100


@IN_A_BROWSER
def test_in_a_browser_a_notebook_shows_a_crystal_and_a_list(crystals, tmp_path):
    found = opened(framed(crystals[0]._repr_html_()), ONE, tmp_path)
    assert found["errors"] == []
    assert found["title"] == f"NaCl {NAMES[0]}"
    assert "predicted band gap5" in found["facts"]
    assert found["colours"] > 100
    found = opened(framed(crystals._repr_html_()), GALLERY, tmp_path)
    assert found["errors"] == []
    assert found["ids"] == NAMES
    assert found["links"] == []
    assert found["drawn"] == 3
