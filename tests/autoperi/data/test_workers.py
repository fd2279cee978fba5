"""Processes that share work: every item is answered once, none outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest

from autoperi.data.workers import mapped, piped

HERE = os.getpid()


def lost(item, reason):
    return (item, reason)


def squares(items, together=1, deadly=None):
    """Takes `together` items before it answers the first, as a batch does."""
    held = []
    for number, item in items:
        if item == deadly:
            os._exit(9)
        held.append((number, item * item))
        if len(held) == together:
            yield held.pop(0)
    yield from held


def square(item, deadly=(), fragile=None):
    """Dies of some items, and of one of them once only."""
    if item in deadly and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    if fragile is not None and item == 7 and not fragile.exists():
        fragile.touch()
        os._exit(1)
    return item * item


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_answered_once(workers):
    found = list(piped(partial(squares, together=4), list(range(20)), workers, lost))
    assert sorted(found) == [k * k for k in range(20)]


@pytest.mark.parametrize("together", [1, 3])
def test_a_process_that_dies_loses_the_item_it_died_of_and_no_more(together):
    work = partial(squares, together=together, deadly=5)
    found = list(piped(work, list(range(12)), 2, lost))
    failed = [answer for answer in found if isinstance(answer, tuple)]
    assert [item for item, _ in failed] == [5]
    assert "exit code 9" in failed[0][1]
    assert sorted(answer for answer in found if isinstance(answer, int)) == [
        k * k for k in range(12) if k != 5
    ]


def test_when_all_processes_die_every_item_is_still_answered():
    found = list(piped(partial(squares, deadly=5), [5, 5, 5, 1, 2], 2, lost))
    assert sorted(item for item, _ in filter(lambda a: isinstance(a, tuple), found)) == [5, 5, 5]
    assert sorted(a for a in found if isinstance(a, int)) == [1, 4]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_function_of_items_in_their_order(workers):
    assert list(mapped(square, range(300), workers, lost)) == [k * k for k in range(300)]
    assert list(mapped(square, [], workers, lost)) == []


def test_items_that_kill_are_named_in_their_places_and_the_rest_keeps_its_speed():
    start = time.perf_counter()
    found = list(mapped(partial(square, deadly={3, 150}), range(400), 2, lost))
    assert time.perf_counter() - start < 20
    for item in (3, 150):
        assert "SIGKILL" in found[item][1]
        found[item] = item * item
    assert found == [k * k for k in range(400)]


def test_a_process_killed_by_others_costs_nothing(tmp_path):
    found = mapped(partial(square, fragile=tmp_path / "once"), range(50), 2, lost)
    assert list(found) == [k * k for k in range(50)]


def test_what_the_function_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(mapped(partial(divmod, 1), [2, 1, 0, 3], 2, lost))


def crawl(item):
    time.sleep(0.5)
    return item


def warning(items):
    for number, item in items:
        warnings.warn("this is no news", UserWarning, stacklevel=1)
        yield number, item


def test_what_is_not_told_here_is_not_told_by_others(capfd):
    """Processes that are started anew have filters of their own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this is no news")
        assert sorted(piped(warning, [1, 2, 3], 2, lost)) == [1, 2, 3]
    assert "no news" not in capfd.readouterr().err


BARS = """
import tqdm
from autoperi.data.workers import piped
from tests.autoperi.data.test_workers import lost
def barred(items):
    for item in items:
        tqdm.tqdm.get_lock()
        yield item
if __name__ == "__main__":
    work = piped(barred, range(1000), 2, lost)
    print(next(work))
    work.close()
"""


def test_processes_that_are_ended_leave_nothing_to_complain_about(tmp_path):
    script = tmp_path / "bars.py"
    script.write_text(BARS)
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=where, check=True)
    assert done.stdout.strip().isdigit()
    assert not done.stderr


CRAWL = """
import sys
from tests.autoperi.data.test_workers import crawl, lost, squares
from autoperi.data.workers import mapped, piped
if __name__ == "__main__":
    print("started", flush=True)
    for _ in mapped(crawl, range(1000), 3, lost):
        print("one", flush=True)
"""


def children(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path, end):
    script = tmp_path / "crawl.py"
    script.write_text(CRAWL)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["started\n", "one\n"]
        workers = children(parent.pid)
        assert len(workers) == 3
        os.kill(parent.pid, end)
        _, complaint = parent.communicate(timeout=20)
    patience = time.perf_counter() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.perf_counter() < patience:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert complaint.count("Traceback") == (end == signal.SIGINT)  # of the script itself alone
