"""Kills and a bad network at random lose nothing, double nothing and show nothing half done."""

from __future__ import annotations

import pytest

from tests.support.siege import LARGE, Round, Siege

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]


QUICK = (0.05, 0.3)
"""Seconds between two kills while there is work; all of it takes but a few."""


def test_every_record_stands_once_after_a_siege(s3, tmp_path):
    siege = Siege(s3, tmp_path, seed=20261125, images=64)
    # Only the second start gets as far as work, and the last: each of these takes half a minute.
    plan = [
        Round(early=True, seconds=2),
        Round(seconds=1, pause=QUICK),
        Round(early=True, seconds=4),
    ]
    bill = siege.run(kills=5, plan=plan)
    print("\n".join(bill.lines()))
    assert bill.damage == dict.fromkeys(bill.damage, 0)
    assert bill.rounds >= 4, "too little happened to prove anything"
    assert bill.cut_off >= 1
    assert bill.kills.total() >= 5
    assert sum(bill.kills[target] for target in LARGE) >= 3
    assert bill.faults.total() >= 5
    assert bill.polls >= 20
