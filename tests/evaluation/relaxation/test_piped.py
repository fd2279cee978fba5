import os
from functools import partial

import pytest

from evaluation.relaxation.piped import piped


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


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_answered_once(workers):
    found = list(piped(partial(squares, together=4), list(range(20)), workers, lost))
    assert sorted(found) == [k * k for k in range(20)]


def test_a_process_that_dies_loses_what_it_held_and_no_more():
    found = list(piped(partial(squares, deadly=5), list(range(12)), 2, lost))
    failed = [answer for answer in found if isinstance(answer, tuple)]
    assert [item for item, _ in failed] == [5]
    assert "exit code 9" in failed[0][1]
    assert sorted(answer for answer in found if isinstance(answer, int)) == [
        k * k for k in range(12) if k != 5
    ]


def test_when_all_processes_die_every_item_is_still_answered():
    found = list(piped(partial(squares, deadly=5), [5, 5, 5, 1, 2], 2, lost))
    assert sorted(item for item, _ in found) == [1, 2, 5, 5, 5]
