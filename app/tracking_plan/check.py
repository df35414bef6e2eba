"""Check of all incoming messages (requests, webhooks, imports) against the tracking plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from app.errors import Rejection, RejectionCode
from app.formats.segment import Parsed, standalone_message
from app.touchpoint import Message, Warning
from app.tracking_plan.event_schema import EnforcedMode, Violation
from app.tracking_plan.plan import Plan

WARNING: Final = "tracking_plan"

MessagePlace = tuple[int, str | None]
"""Key of a message within one request: the index of its event, and its message id.

The index alone is ambiguous, because one event of a tool can become several messages.
"""


class PlanViolation(msgspec.Struct, frozen=True):
    """A message that violates the tracking plan, with the mode of the plan's entry and the violations."""

    message: Message
    mode: EnforcedMode
    violations: Sequence[Violation]

    @property
    def description(self) -> str:
        return "; ".join(violation.message for violation in self.violations)


def check_plan(plan: Plan, parsed: Parsed) -> tuple[Parsed, dict[MessagePlace, PlanViolation]]:
    """Check all messages of a request. Return the request, and the violations by place of the message.

    In the returned request, a message to be quarantined is a rejection. Its original becomes a Segment-shaped message
    that needs no envelope, so that it can be corrected.
    """
    if not plan.entries:
        return parsed, {}
    violations: dict[MessagePlace, PlanViolation] = {}
    warnings: list[Warning] = []
    rejections: list[Rejection] = []
    quarantined_positions: set[int] = set()
    for position, (index, message) in enumerate(parsed.messages):
        violation = _find_violation(plan, message)
        if violation is None:
            continue
        message_id = message.message_id
        violations[index, message_id] = violation
        reason = violation.description
        match violation.mode:
            case "quarantine":
                quarantined_positions.add(position)
                original = standalone_message(parsed, position)
                rejections.append(Rejection(index, RejectionCode.TRACKING_PLAN, reason, message_id, original))
            case "warn":
                warnings.append(Warning(index, WARNING, reason, message_id))
            case _:
                assert_never(violation.mode)
    if not violations:
        return parsed, {}
    stored_positions = [position for position in range(len(parsed.messages)) if position not in quarantined_positions]
    return msgspec.structs.replace(
        parsed,
        messages=[parsed.messages[position] for position in stored_positions],
        raws=[parsed.raws[position] for position in stored_positions],
        rejections=sorted(parsed.rejections + rejections, key=lambda rejection: rejection.index),
        warnings=parsed.warnings + warnings,
    ), violations


def _find_violation(plan: Plan, message: Message) -> PlanViolation | None:
    planned_event = None if message.name is None else plan.find_event(message.source, message.name)
    violations = () if planned_event is None else planned_event.check.find_violations(message.properties)
    return PlanViolation(message, planned_event.mode, violations) if planned_event is not None and violations else None
