from autoperi.discovery.campaign.funnel import Funnel, Passed

ONE = Funnel((Passed("drawn", 100, 95, 3.0), Passed("stable", 95, 5, 6.0)))
OTHER = Funnel((Passed("drawn", 100, 90, 2.0), Passed("stable", 90, 10, 7.0)))


def test_sums_and_rates():
    both = Funnel.summed([ONE, OTHER, Funnel()])
    assert both.stages == (Passed("drawn", 200, 185, 5.0), Passed("stable", 185, 15, 13.0))
    assert (both.drawn, both.found, both.seconds) == (200, 15, 18.0)
    assert both.per_hour() == 3000
    assert both.narrowest() == both.stages[1]
    assert both.then("returned", 12).record()["stages"][-1] == {
        "stage": "returned",
        "entered": 15,
        "left": 12,
        "seconds": 0.0,
    }


def test_the_nearest_of_all_shards_tells_how_far_a_window_is():
    """Windows that were met are not missed."""
    shards = [{"gap": 1.5, "modulus": 0.0}, {"gap": 0.7, "modulus": 3.0}, {}]
    both = Funnel.summed(Funnel((Passed("on target", 9, 0, 1.0, missed),)) for missed in shards)
    assert both.missed() == {"gap": 0.7}
    assert Funnel().missed() == {}


def test_nothing_has_no_rate():
    empty = Funnel.summed([])
    assert (empty.drawn, empty.found, empty.per_hour(), empty.narrowest()) == (0, 0, 0.0, None)


def test_it_is_told_in_lines_and_on_a_page():
    lines = ONE.lines().splitlines()
    assert lines[0].split()[:2] == ["drawn", "95"]
    assert all(len(line) < 80 for line in lines)
    html = Funnel((Passed("<b>", 1, 1, 0.0),)).section().html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
