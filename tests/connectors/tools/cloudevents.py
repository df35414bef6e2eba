"""Fixture of the CloudEvents connector: payloads in all three modes; test_cloudevents.py uses the SDK."""

from __future__ import annotations

from base64 import b64encode

from app.connectors.tools.cloudevents import CONNECTOR
from tests.support.tool_fixture import Case, Fixture, SignedWith, Touchpoint, json_body

_AT = "2026-05-04T10:00:00Z"
_WHO = "user_id:user-1"
_STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
_BATCH = {"content-type": "Application/CloudEvents-Batch+JSON"}


def sign(body: bytes, secret: str, now: int, url: str) -> SignedWith:
    del body, now, url
    return {"Authorization": f"Bearer {secret}"}, {}


def _event(n: int = 0, **members: object) -> dict[str, object]:
    event = {"specversion": "1.0", "id": f"e-{n}", "source": "/s", "type": "com.example.created", "subject": "user-1"}
    return {**event, "time": f"2026-05-04T10:00:0{n}Z", **members}


def _binary(**headers: str) -> dict[str, str]:
    attributes = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/s",
        "type": "com.example.created",
        "time": _AT,
        **headers,
    }
    return {f"ce-{name}": value for name, value in attributes.items()}


FIXTURE = Fixture(
    kind="cloudevents",
    secret="",
    sign=sign,
    sample=Case(
        "structured",
        CONNECTOR.sample,
        "email:user@example.com",
        (
            Touchpoint(
                "com.example.order.completed",
                "web",
                _AT,
                {"total": 42.5, "channel": None, "email": None},
                {"cloudevent": {"source": "/shop/checkout", "subject": "user-1"}},
            ),
        ),
        headers=CONNECTOR.sample_headers,
    ),
    several=Case(
        "batched mode; equal ids of two sources are two events",
        json_body([_event(0), _event(1), _event(1, source="/t", time="2026-05-04T10:00:02Z")]),
        _WHO,
        (
            Touchpoint("com.example.created", "server", _AT),
            Touchpoint("com.example.created", "server", "2026-05-04T10:00:01Z"),
            Touchpoint("com.example.created", "server", "2026-05-04T10:00:02Z"),
        ),
        headers=_BATCH,
    ),
    unknown=Case(
        "an unknown type keeps its name",
        json_body(_event(type="org.example.teleported.v7")),
        _WHO,
        (Touchpoint("org.example.teleported.v7", "server", _AT),),
        headers=_STRUCTURED,
    ),
    non_ascii=Case(
        "binary mode with quoted and percent-encoded headers and Greek data",
        json_body({"wort": "καλημέρα"}),
        "user_id:größe 100%2541",
        (
            Touchpoint(
                "com.example.created",
                "server",
                _AT,
                {"wort": "καλημέρα"},
                {
                    "cloudevent": {
                        "source": "/s",
                        "subject": "größe 100%41",
                        "partition": 'a "b" c',
                    }
                },
            ),
        ),
        headers={
            "content-type": "application/json",
            **_binary(subject="gr%C3%B6%C3%9Fe%20100%2541", partition='"a \\"b\\" c"'),
        },
    ),
    times=(
        Case(
            "an offset, seven digits and an invalid time",
            json_body(
                [
                    _event(0, time="2026-05-04T12:00:00+02:00"),
                    _event(1, time="2026-05-04T10:00:01.1234567Z"),
                    _event(2, time="soon"),
                ]
            ),
            _WHO,
            (
                Touchpoint("com.example.created", "server", _AT),
                Touchpoint("com.example.created", "server", "2026-05-04T10:00:01.123456Z"),
                Touchpoint("com.example.created", "server", "2026-05-05T12:00:00Z"),
            ),
            headers=_BATCH,
        ),
    ),
    malformed=Case(
        "four invalid events and a valid one",
        json_body([_event(0), {**_event(1), "source": ""}, _event(2, specversion="0.3"), _event(3, id=7), 7]),
        _WHO,
        (Touchpoint("com.example.created", "server", _AT),),
        rejected=4,
        headers=_BATCH,
    ),
    others=(
        Case("an empty batch", b"[]", headers=_BATCH),
        Case(
            "a batch that is not an array",
            b"{}",
            rejected=1,
            headers=_BATCH,
        ),
        Case(
            "binary mode, a header that is not UTF-8",
            b"{}",
            rejected=1,
            headers={"content-type": "application/json", **_binary(subject="%FF")},
        ),
        Case(
            "binary mode, a vendor media type",
            json_body({"userId": 7, "n": 1}),
            "user_id:7",
            (Touchpoint("com.example.created", "server", _AT, {"n": 1}),),
            headers={"content-type": "application/vnd.example.v2+json", **_binary(subject="user-1")},
        ),
        Case(
            "binary mode, text",
            "schön".encode(),
            _WHO,
            (Touchpoint("com.example.created", "server", _AT, {"data": "schön"}),),
            headers={"content-type": "text/plain; charset=utf-8", **_binary(subject="user-1")},
        ),
        Case(
            "binary mode, bytes",
            b"\xff\x00",
            _WHO,
            (Touchpoint("com.example.created", "server", _AT, {"data_base64": "/wA="}),),
            headers={"content-type": "application/octet-stream", **_binary(subject="user-1")},
        ),
        Case(
            "data_base64 that contains JSON",
            json_body(_event(data_base64=b64encode(b'{"email":"user@example.com","n":1}').decode())),
            "email:user@example.com",
            (Touchpoint("com.example.created", "server", _AT, {"n": 1}),),
            headers=_STRUCTURED,
        ),
        Case(
            "structured mode with a JSON content type and no identity",
            json_body({name: value for name, value in _event().items() if name != "subject"}),
            rejected=1,
        ),
        Case("not a CloudEvent", b'{"hello":"world"}', rejected=1),
    ),
)
