"""One customer's journey: ten touchpoints over five channels and two devices, through all six stages.

The customer is anonymous until the checkout. Emails and support know only the address, the app only the account.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from tests.support.server_process import Client, Server

VISITOR, MAIL, ACCOUNT = "anonymousId", "email", "userId"


class Step(NamedTuple):
    at: str
    channel: str
    knows: Sequence[str]
    """Ids that messages of this channel contain."""
    message: dict[str, Any]
    stage: str
    """Stage of the customer after this step."""


def track(event: str, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "properties": properties}


def page(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "page", "name": name, "properties": properties}


STORY = (
    Step("2025-03-01T18:00:00Z", "social", [VISITOR], track("Ad Viewed", network="instagram"), "awareness"),
    Step("2025-03-01T18:05:00Z", "web", [VISITOR], page("Dry skin in winter", category="Blog"), "consideration"),
    Step("2025-03-03T20:10:00Z", "web", [VISITOR], track("Review Read", product_id="serum"), "consideration"),
    Step("2025-03-05T08:30:00Z", "web", [VISITOR], track("Offer Accepted", offer="15-percent"), "decision"),
    Step(
        "2025-03-05T08:45:00Z",
        "web",
        [ACCOUNT, VISITOR, MAIL],
        track("Order Completed", order_id="1001", total=34.0),
        "purchase",
    ),
    Step(
        "2025-03-05T09:00:00Z",
        "email",
        [MAIL],
        track("Email Delivered", email_subject="Thank you for your order"),
        "post-purchase",
    ),
    Step(
        "2025-03-12T07:00:00Z",
        "email",
        [MAIL],
        track("Email Opened", email_subject="Five tips for your new serum"),
        "post-purchase",
    ),
    Step(
        "2025-03-14T11:20:00Z",
        "support",
        [MAIL],
        track("Support Ticket Created", topic="how much at once"),
        "post-purchase",
    ),
    Step("2025-04-20T19:00:00Z", "app", [ACCOUNT], track("Order Completed", order_id="1002", total=61.5), "loyalty"),
    Step("2025-04-22T12:00:00Z", "app", [ACCOUNT], track("Referral Sent", to="a friend"), "loyalty"),
)

STAYS = [
    ("awareness", STORY[0].at, STORY[1].at),
    ("consideration", STORY[1].at, STORY[3].at),
    ("decision", STORY[3].at, STORY[4].at),
    ("purchase", STORY[4].at, STORY[5].at),
    ("post-purchase", STORY[5].at, STORY[8].at),
    ("loyalty", STORY[8].at, None),
]


def ids(person: str) -> dict[str, str]:
    return {VISITOR: f"{person}-device", MAIL: f"{person}@example.com", ACCOUNT: f"{person}-account"}


def message(step: Step, person: str) -> dict[str, Any]:
    own = {name: value for name, value in ids(person).items() if name in step.knows}
    traits = {"traits": {"email": own.pop(MAIL)}} if MAIL in own else {}
    context = {"channel": step.channel, **traits}
    return {
        **step.message,
        **own,
        "context": context,
        "timestamp": step.at,
        "messageId": f"{person}-{STORY.index(step)}",
    }


def references(person: str, steps: Sequence[Step]) -> list[str]:
    """Return a reference to the customer by each id that is known after these steps."""
    kinds = {VISITOR: "anonymous_id", MAIL: "email", ACCOUNT: "user_id"}
    known_names = {name for step in steps for name in step.knows}
    return [f"{kinds[name]}:{value}" for name, value in ids(person).items() if name in known_names]


async def history(client: Client, person: str) -> dict[str, Any]:
    """Return all intervals of stages and segments with their causes, but without the customer's ids."""
    reference = f"user_id:{ids(person)[ACCOUNT]}"
    journeys = (await client.ask(f"/v1/customers/{reference}/journey"))["items"]
    segments = (await client.ask(f"/v1/customers/{reference}/segments", history="true"))["items"]
    return {"journeys": _unnamed(journeys, person), "segments": _unnamed(segments, person)}


def _unnamed(items: list[Any], person: str) -> list[str]:
    return sorted(repr(item).replace(person, "her") for item in items)


async def test_each_touchpoint_leads_to_the_expected_stage(server: Server) -> None:
    assert len(STORY) == 10
    assert len({step.channel for step in STORY}) == 5
    async with server.client() as client:
        for number, step in enumerate(STORY, 1):
            receipt = await client.send(message(step, "skincare"))
            assert (receipt["accepted"], receipt["projected"]) == (1, True)
            customers = [
                await client.ask(f"/v1/customers/{reference}") for reference in references("skincare", STORY[:number])
            ]
            assert [customer["stages"]["six-stage"]["stage"] for customer in customers] == [step.stage] * len(
                customers
            ), number
            assert len({customer["id"] for customer in customers}) == 1
            if number < 5:
                assert await status(client, f"/v1/customers/{ids('skincare')[ACCOUNT]}") == httpx.codes.NOT_FOUND

        customer = await client.ask("/v1/customers/skincare-account")
        assert {(identity["kind"], identity["value"]) for identity in customer["identities"]} == {
            ("anonymous_id", "skincare-device"),
            ("email", "skincare@example.com"),
            ("user_id", "skincare-account"),
        }
        stays = (await client.ask("/v1/customers/skincare-account/journey", journey="six-stage"))["items"]
        assert [(stay["stage"], _whole(stay["entered_at"]), _whole(stay["left_at"])) for stay in stays] == STAYS
        # The checkout links the anonymous visit to the customer, so the first stage is caused by the ad.
        assert stays[0]["cause"]["message_id"] == "skincare-0"
        timeline = await client.all_of("/v1/customers/skincare-account/touchpoints")
        assert [entry["channel"] for entry in timeline] == [step.channel for step in reversed(STORY)]


async def test_order_and_batches_do_not_change_the_result(server: Server) -> None:
    rng = random.Random(6)
    async with server.client() as client:
        await client.send(*(message(step, "told-once") for step in STORY))
        expected = await history(client, "told-once")
        assert any("loyalty" in stay for stay in expected["journeys"])
        assert any("repeat-buyers" in stay for stay in expected["segments"])
        for number in range(12):
            person = f"shuffled-{number}"
            steps = list(STORY)
            if number:
                rng.shuffle(steps)
            else:
                steps.reverse()
            steps += rng.sample(steps, 3)
            while steps:
                size = rng.randint(1, 4)
                await client.send(*(message(step, person) for step in steps[:size]))
                del steps[:size]
            assert await history(client, person) == expected, number
            customer = await client.ask(f"/v1/customers/{person}-account")
            assert customer["stages"]["six-stage"]["stage"] == "loyalty"


async def status(client: Client, path: str) -> int:
    return (await client.http.get(path, headers=client.secret)).status_code


def _whole(instant: str | None) -> str | None:
    """Return the instant without its fraction of a second, which is always zero here."""
    return None if instant is None else instant.replace(".000000", "")
