"""What is stored of a customer between two messages. Pure data, JSON in the ``customers.state`` column."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from app.rules.series import Series


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a truth changed: a message arrived, or time alone passed (``message_id`` is then absent)."""

    kind: str
    message_id: str | None = None
    source: str | None = None


class Truth(msgspec.Struct, array_like=True):
    """One rule for one customer: does it hold, since when, and the instant it changes if nothing arrives."""

    holds: bool
    since: int
    until: int | None = None


class Standing(msgspec.Struct, array_like=True):
    """The place in one journey: the current stage, or none."""

    stage: str | None
    since: int
    cause: Cause


class Move(msgspec.Struct, array_like=True):
    """What is left of a message once it has met the rules: the leaves it belongs to and the traits it sets."""

    at: int
    message_id: str
    source: str
    leaves: tuple[str, ...]
    traits: dict[str, Any] | None

    @property
    def matters(self) -> bool:
        return bool(self.leaves or self.traits)


class State(msgspec.Struct, omit_defaults=True):
    """``truths`` holds only rules that something has touched; any other rule is as the ruleset's ``initial`` says.

    ``at`` is the last instant at which anything was decided: a message that matters and is older needs a replay.
    """

    born: int | None = None
    at: int = 0
    traits_at: int = 0
    messages: int = 0
    traits: dict[str, Any] = {}
    series: dict[str, Series] = {}
    truths: dict[str, Truth] = {}
    journeys: dict[str, Standing] = {}
    pending: list[Move] = []
    """Messages of the future (clocks run ahead): they count from their own instant on."""


_decoder = msgspec.json.Decoder(State, float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


def read_state(text: str) -> State:
    return _decoder.decode(text)


def write_state(state: State) -> str:
    return _encoder.encode(state).decode()
