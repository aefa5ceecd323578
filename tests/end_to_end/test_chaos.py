"""Kills and a bad network at random lose nothing, double nothing and show nothing half done."""

from __future__ import annotations

import pytest

from tests.support.siege import Siege

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]


def test_every_record_stands_once_after_a_siege(s3, tmp_path):
    siege = Siege(s3, tmp_path, seed=20261125, images=48)
    bill = siege.run(kills=5)
    print("\n".join(bill.lines()))
    assert bill.damage == dict.fromkeys(bill.damage, 0)
    assert bill.rounds >= 4, "too little happened to prove anything"
    assert bill.kills.total() >= 5
    assert bill.faults.total() >= 5
    assert bill.polls >= 20
