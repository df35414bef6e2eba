"""The tracking plan, asked of every message on its way in: requests, webhooks and imports alike. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.errors import Rejection, RejectionCode
from app.formats.segment import Parsed, standalone_message
from app.touchpoint import Message, Warning
from app.tracking_plan.event_schema import Mode, Violation
from app.tracking_plan.plan_store import Plan

WARNING: Final = "tracking_plan"

MessagePlace = tuple[int, str | None]
"""Index and message id: one event of a tool may have become several messages."""


class PlanViolation(msgspec.Struct, frozen=True):
    """A message that does not keep to the plan, and in what."""

    message: Message
    mode: Mode
    violations: Sequence[Violation]

    @property
    def said(self) -> str:
        return "; ".join(violation.message for violation in self.violations)


def check_plan(plan: Plan, parsed: Parsed) -> tuple[Parsed, dict[MessagePlace, PlanViolation]]:
    """The messages that may go on, and those that break the plan by their place; nothing is done where there is none.

    What is kept apart goes into quarantine as a message of ours that stands for itself, so that it can be corrected.
    """
    if not plan.entries:
        return parsed, {}
    broken: dict[MessagePlace, PlanViolation] = {}
    warnings: list[Warning] = []
    rejections: list[Rejection] = []
    apart: set[int] = set()
    for position, (index, message) in enumerate(parsed.messages):
        found = _broken(plan, message)
        if found is None:
            continue
        id = message.message_id
        broken[index, id] = found
        if found.mode == "quarantine":
            apart.add(position)
            original = standalone_message(parsed, position)
            rejections.append(Rejection(index, RejectionCode.TRACKING_PLAN, found.said, id, original))
        else:
            warnings.append(Warning(index, WARNING, found.said, id))
    if not broken:
        return parsed, {}
    kept = [position for position in range(len(parsed.messages)) if position not in apart]
    return msgspec.structs.replace(
        parsed,
        messages=[parsed.messages[position] for position in kept],
        raws=[parsed.raws[position] for position in kept],
        rejections=sorted(parsed.rejections + rejections, key=lambda rejection: rejection.index),
        warnings=parsed.warnings + warnings,
    ), broken


def _broken(plan: Plan, message: Message) -> PlanViolation | None:
    planned = None if message.name is None else plan.of(message.source, message.name)
    violations = () if planned is None else planned.check.violations(message.properties)
    return PlanViolation(message, planned.mode, violations) if planned is not None and violations else None
