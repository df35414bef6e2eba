"""``docs/website.md`` lists the channel groups, click ids, devices and bot settings of the code."""

from __future__ import annotations

import re
from typing import get_args

from app.enrichment import GROUPS
from app.enrichment.click_ids import CLICK_IDS
from app.enrichment.user_agents import Device
from tests.docs.markdown import ROOT, in_first_column, read, rows

WEBSITE = ROOT / "docs" / "website.md"


def test_channel_groups_are_listed_in_order() -> None:
    listed = [
        (group, row[2].split(",")[0])
        for row in rows(WEBSITE)
        if len(row) == 3
        for group in row[0].split(", ")
        if group in GROUPS
    ]
    assert listed == list(GROUPS.items())


def test_click_ids_are_listed() -> None:
    (paid,) = (row[2] for row in rows(WEBSITE) if row[0].startswith("click ids of paid"))
    (other,) = (row[2] for row in rows(WEBSITE) if row[0] == "other click ids")
    for text, is_paid in ((paid, True), (other, False)):
        names = {word for code in re.findall(r"`([^`]+)`", text) for word in code.split() if "=" not in word}
        assert {click.name for click in CLICK_IDS.values() if click.paid is is_paid} == names


def test_devices_and_bot_settings_are_listed() -> None:
    assert {"`quarantine`", "`drop`", "`keep`"} <= {f"`{name}`" for name in in_first_column(WEBSITE)}
    assert ", ".join(f"`{device}`" for device in get_args(Device)[:-1]) in read(WEBSITE)
