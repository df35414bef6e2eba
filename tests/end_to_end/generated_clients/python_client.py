"""Calls Segue through a package that openapi-python-client generates.

Arguments: base URL, write key, secret key, user id.
"""

from __future__ import annotations

import sys
from base64 import b64encode

from segue_client import AuthenticatedClient
from segue_client.api.collect import collect_batch
from segue_client.api.customers import get_customer
from segue_client.api.segments import create_segment, list_segment_members
from segue_client.models import (
    AggregateRule,
    AllRule,
    AnyRule,
    BatchIn,
    BatchItemIn,
    BatchItemInType,
    CustomerOut,
    DidRule,
    MembersOut,
    NotRule,
    Problem,
    ReceiptOut,
    SegmentIn,
    SegmentOut,
    SegmentRule,
    TraitRule,
)


def main(base_url: str, write_key: str, secret_key: str, user_id: str) -> None:
    basic_token = b64encode(f"{write_key}:".encode()).decode()
    with AuthenticatedClient(base_url, basic_token, prefix="Basic") as sender:
        call = {"userId": user_id, "event": "Order Completed", "properties": {"total": 42.5}}
        batch = [
            BatchItemIn.from_dict({"type": "identify", "userId": user_id, "traits": {"plan": "pro"}}),
            BatchItemIn.from_dict({**call, "type": BatchItemInType.TRACK}),
        ]
        receipt = collect_batch.sync(client=sender, body=BatchIn(batch=batch))
    assert isinstance(receipt, ReceiptOut)
    assert receipt.accepted == 2

    with AuthenticatedClient(base_url, secret_key) as reader:
        rule = AllRule(
            all_=[
                AggregateRule(sum_="total", of="Order Completed", within="90d", gte=40),
                NotRule(not_=TraitRule(trait="plan", eq="free")),
                AnyRule(any_=[DidRule(did="Order Completed", at_least=1), SegmentRule(segment="first-time-buyers")]),
            ]
        )
        definition = SegmentIn(key=f"{user_id}-spenders", rule=rule)
        created = create_segment.sync(client=reader, body=definition)
        assert isinstance(created, SegmentOut)
        assert created.version == 1
        assert created.rule == rule
        duplicate = create_segment.sync(client=reader, body=definition)
        assert isinstance(duplicate, Problem)
        assert duplicate.code == "conflict"

        customer = get_customer.sync(f"user_id:{user_id}", client=reader)
        assert isinstance(customer, CustomerOut)
        assert customer.stages["six-stage"].stage == "purchase"
        assert definition.key in [membership.key for membership in customer.segments]
        members = list_segment_members.sync(definition.key, client=reader, limit=1_000)
        assert isinstance(members, MembersOut)
        assert customer.id in [member.id for member in members.items]

        missing = get_customer.sync("no-such-customer", client=reader)
        assert isinstance(missing, Problem)
        assert missing.code == "not_found"
    print("done")


main(*sys.argv[1:])
