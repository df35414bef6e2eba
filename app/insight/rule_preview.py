"""Preview of an unsaved rule, and dry run of an edit of a segment.

Both run the engine of saved rules over the same log, customer by customer, in one snapshot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from app.config import Settings
from app.errors import InvalidDefinition, NotFound
from app.insight.customer_scan import LabelledCustomer, count_customers, fold_customers, label_customers, scan_customers
from app.postgres.pool import Pool, snapshot
from app.queries.customer_state import truth_of
from app.queries.explanations import Explanation, explain_rule
from app.registry.registry import Registry
from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.language.nodes import Rule
from app.rules.language.references import Definition

UNSAVED: Final = "(unsaved)"
"""Key under which an unsaved rule is compiled. No definition can have this key."""

_RULE_ID: Final = f"segment:{UNSAVED}"
_TIMED_CHUNK_CUSTOMERS: Final = 50
_Z: Final = 1.959964
"""Number of standard deviations around the mean that contain 95 % of a normal distribution."""


class Evidence(msgspec.Struct, frozen=True):
    """A customer for whom the rule holds, and why."""

    customer: LabelledCustomer
    why: Explanation


class Preview(msgspec.Struct):
    """Result of a preview. If all customers were scanned (``exact``), the estimate and its bounds equal the count."""

    estimate: int
    low: int
    high: int
    exact: bool
    customers_scanned: int
    customers_total: int
    sample: list[Evidence]


class MembershipChange(msgspec.Struct):
    """Customers that enter, leave or stay in the segment: their number and a sample."""

    count: int = 0
    sample: list[LabelledCustomer] = []


class SegmentDryRun(msgspec.Struct):
    """Result of a dry run. ``changes`` are other definitions whose meaning changes too, such as ``segment at-risk``."""

    enter: MembershipChange
    leave: MembershipChange
    stay: MembershipChange
    changes: list[str]
    customers_total: int


class RulePreviews:
    """Previews and dry runs as of ``now``, which may be in the past."""

    def __init__(self, pool: Pool, registry: Registry, settings: Settings) -> None:
        self._pool = pool
        self._registry = registry
        self._settings = settings

    async def preview(self, rule: Rule, now: int, sample_max: int, within_ms: int | None) -> Preview:
        """Count the customers for whom the rule holds, and explain up to ``sample_max`` of them.

        With ``within_ms``, stop after that time: three quarters of it are for scanning random customers, the rest is
        for explaining the sample. Raise :class:`InvalidDefinition` if the rule reads a definition that does not exist.
        """
        is_over = _deadline(within_ms)
        is_count_over = _deadline(within_ms and (within_ms * 3 / 4 if sample_max else within_ms))
        async with snapshot(self._pool) as connection:
            ruleset = self._compile_with(await self._registry.rules.read(connection), [_unsaved_segment(rule)])
            rule_only = ruleset.subset([_RULE_ID])
            total = await count_customers(connection)
            scanned = 0
            count = 0
            members: list[bytes] = []
            chunks = scan_customers(connection, _TIMED_CHUNK_CUSTOMERS) if within_ms else scan_customers(connection)
            async for ids in chunks:
                folded = await fold_customers(connection, ids, rule_only, now)
                member_ids = [id for id in ids if truth_of(folded[id].state, rule_only, _RULE_ID).holds]
                scanned += len(ids)
                count += len(member_ids)
                members += member_ids[: sample_max - len(members)]
                if is_count_over():
                    break
            evidence: list[Evidence] = []
            for customer in await label_customers(connection, members):
                if is_over():
                    break
                evidence.append(Evidence(customer, await explain_rule(connection, customer.id, _RULE_ID, ruleset, now)))
        estimate, low, high = _estimate_total(count, scanned, total)
        return Preview(estimate, low, high, scanned == total, scanned, total, evidence)

    async def dry_run(self, key: str, rule: Rule, now: int, sample_max: int) -> SegmentDryRun:
        """Return which customers would enter, leave and stay if ``rule`` replaced the segment's rule.

        Raise :class:`NotFound` if the segment does not exist, and :class:`InvalidDefinition` if the rule could not be
        saved.
        """
        rule_id = f"segment:{key}"
        async with snapshot(self._pool) as connection:
            current = await self._registry.rules.read(connection)
            old = next((segment for segment in current.segments if segment.key == key), None)
            if old is None:
                raise NotFound(f"The segment {key} does not exist.")
            changed = self._compile_with(current, [msgspec.structs.replace(old, rule=rule)])
            both_rules = self._compile_with(current, [_unsaved_segment(rule)]).subset([rule_id, _RULE_ID])
            changes_by_truths: dict[tuple[bool, bool], MembershipChange] = {}
            total = 0
            async for ids in scan_customers(connection):
                folded = await fold_customers(connection, ids, both_rules, now)
                total += len(ids)
                for id in ids:
                    before, after = (
                        truth_of(folded[id].state, both_rules, compared_id).holds for compared_id in (rule_id, _RULE_ID)
                    )
                    change = changes_by_truths.setdefault((before, after), MembershipChange())
                    change.count += 1
                    if (before or after) and len(change.sample) < sample_max:
                        change.sample.append(LabelledCustomer(id, []))
            for change in changes_by_truths.values():
                change.sample = await label_customers(connection, [customer.id for customer in change.sample])
        enter, leave, stay = (
            changes_by_truths.get(truths) or MembershipChange()
            for truths in ((False, True), (True, False), (True, True))
        )
        return SegmentDryRun(enter, leave, stay, _list_changed_definitions(current, changed, rule_id), total)

    def _compile_with(self, current: Ruleset, definitions: Sequence[Definition]) -> Ruleset:
        """Compile the current definitions and ``definitions``, which replace definitions of the same kind and key."""
        replaced = {(definition.kind, definition.key) for definition in definitions}
        unchanged = [
            definition for definition in current.definitions if (definition.kind, definition.key) not in replaced
        ]
        try:
            return compile_ruleset(
                [*unchanged, *definitions],
                revision=current.revision,
                timezone=self._settings.timezone,
                default_journey=self._settings.default_journey,
            )
        except InvalidDefinition as error:
            # The author of the rule does not know the key under which the rule is compiled.
            error.message = error.message.replace(f"`{_RULE_ID}`", "the rule")
            raise


def _unsaved_segment(rule: Rule) -> Definition:
    return Definition("segment", UNSAVED, 0, "", "", "", rule, ())


def _list_changed_definitions(current: Ruleset, changed: Ruleset, except_id: str) -> list[str]:
    """Return the definitions whose meaning would change, excluding ``except_id``."""
    names = []
    for definition in current.definitions:
        definition_id = f"{definition.kind}:{definition.key}"
        if definition_id != except_id and current.meanings.get(definition_id) != changed.meanings.get(definition_id):
            names.append(f"{definition.kind} {definition.key}")
    return names


def _deadline(within_ms: float | None) -> Callable[[], bool]:
    if within_ms is None:
        return lambda: False
    end = time.monotonic() + within_ms / 1_000
    return lambda: time.monotonic() >= end


def _estimate_total(count: int, scanned: int, total: int) -> tuple[int, int, int]:
    """Return (estimate, low, high) for all customers.

    The bounds are the 95 % Wilson score interval, narrowed to the values that are still possible.
    """
    if scanned == total:
        return count, count, count
    share = count / scanned
    spread = _Z * math.sqrt(share * (1 - share) / scanned + (_Z / (2 * scanned)) ** 2)
    middle, scale = share + _Z**2 / (2 * scanned), 1 + _Z**2 / scanned
    low = max(count, math.floor((middle - spread) / scale * total))
    high = min(total - scanned + count, math.ceil((middle + spread) / scale * total))
    return round(share * total), low, high
