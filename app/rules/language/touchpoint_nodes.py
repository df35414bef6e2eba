"""Models of the nodes that match touchpoints: counts, first and last, sequences, regular activity."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from app.rules.language.comparison import documented_config
from app.rules.language.expressions import Filtered, Windowed, head_of
from app.rules.language.fields import (
    PERIODS_MAX,
    Count,
    Events,
    Length,
    Paths,
    Period,
    Timezone,
    is_calendar_length,
    is_never_longer,
)
from app.rules.language.validation import validation_error


class Did(Filtered, Windowed):
    """A condition on the number of matching touchpoints in a window."""

    model_config = documented_config(
        "True if the number of matching touchpoints in the window satisfies the count. Default count: at least 1.",
        {"did": "Order Completed", "where": {"total": {"gte": 50}}, "at_least": 2, "within": "90d"},
        {"did": ["Email Opened", "Email Link Clicked"], "channel": "email", "from": "1997-01-01", "to": "1997-10-01"},
        {"did": "Store Visited", "during": "weekend", "timezone": "Europe/Lisbon"},
    )
    head: ClassVar = "did"

    did: Events
    at_least: Count | None = Field(None, description="At least this number.")
    at_most: Count | None = Field(None, description="At most this number. 0 touchpoints also satisfy it.")
    exactly: Count | None = Field(None, description="Exactly this number.")
    between: list[Count] | None = Field(
        None, min_length=2, max_length=2, description="[lowest, highest] number; the range includes both bounds."
    )

    @property
    def count(self) -> tuple[int, int | None]:
        """Lowest and highest number that satisfies the count; the highest is ``None`` if there is no limit."""
        if self.at_most is not None:
            return 0, self.at_most
        if self.exactly is not None:
            return self.exactly, self.exactly
        if self.between is not None:
            return self.between[0], self.between[1]
        return (1 if self.at_least is None else self.at_least), None

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        counts = [name for name in ("at_least", "at_most", "exactly", "between") if getattr(self, name) is not None]
        if len(counts) > 1:
            raise validation_error(
                "the node has more than one count",
                "Keep one of `at_least`, `at_most`, `exactly`, `between`.",
                counts[1],
            )
        if self.at_least == 0:
            raise validation_error("`at_least: 0` is always true", "Use 1 or more, or remove the node.", "at_least")
        if self.between is not None and self.between[0] > self.between[1]:
            raise validation_error(
                "the lower bound is greater than the upper bound", "Write [lowest, highest].", "between"
            )
        return self


class _SingleTouchpoint(Filtered, Windowed):
    """Base of ``first`` and ``last``, which select one touchpoint of all that match and test it against the window."""

    @model_validator(mode="after")
    def _require_window(self) -> Self:
        if not self.has_window:
            raise validation_error(
                "the node has no window", "Add `within`, `before`, `from`, `to` or `during`; or use `did`."
            )
        return self


class First(_SingleTouchpoint):
    model_config = documented_config(
        "True if the earliest matching touchpoint of all time exists and is in the window.",
        {"first": "Order Completed", "within": "30d"},
    )
    head: ClassVar = "first"

    first: Events


class Last(_SingleTouchpoint):
    model_config = documented_config(
        "True if the latest matching touchpoint of all time exists and is in the window.",
        {"last": "Order Completed", "before": "90d"},
    )
    head: ClassVar = "last"

    last: Events


class PlainDid(Filtered):
    model_config = documented_config(
        "A touchpoint that must not follow the previous step of a sequence.",
        {"did": "Order Completed", "channel": ["web", "app"]},
    )
    head: ClassVar = "did"

    did: Events


class Step(PlainDid):
    model_config = documented_config(
        "A step of a sequence: a matching touchpoint, later than the touchpoint of the previous step.",
        {"did": "Checkout Started", "within": "1h"},
        {"did": "Order Completed", "after_at_least": "5m"},
    )

    within: Length | None = Field(None, description="The time since the previous step is shorter than this.")
    after_at_least: Length | None = Field(None, description="The time since the previous step is at least this.")

    @model_validator(mode="after")
    def _check_gap(self) -> Self:
        if self.within and self.after_at_least and is_never_longer(self.within, self.after_at_least):
            raise validation_error(
                "no time between the steps satisfies both `within` and `after_at_least`",
                "`after_at_least` must be shorter than `within`.",
                "after_at_least",
            )
        return self


class NotStep(BaseModel):
    model_config = documented_config(
        "The last step of a sequence: no matching touchpoint follows the previous step within this time. The step "
        "becomes true when the time has passed.",
        {"not": {"did": "Order Completed"}, "within": "1h"},
    )
    head: ClassVar = "not"

    not_: PlainDid = Field(alias="not")
    within: Length = Field(description="Time after the previous step in which no touchpoint may match.")


AnyStep = Annotated[Annotated[Step, Tag("did")] | Annotated[NotStep, Tag("not")], Discriminator(head_of)]


class Sequence(Windowed):
    model_config = documented_config(
        "True if there is one touchpoint for each step, each later than the previous one, and all are in the window.",
        {
            "sequence": [{"did": "Product Viewed"}, {"did": "Product Added", "within": "1h"}],
            "same": ["product_id"],
            "within": "30d",
        },
        {"sequence": [{"did": "Checkout Started"}, {"not": {"did": "Order Completed"}, "within": "1h"}]},
    )
    head: ClassVar = "sequence"

    sequence: list[AnyStep] = Field(
        min_length=2, max_length=10, description="2 to 10 steps in order. Only the last step may be a `not`."
    )
    same: Paths | None = Field(
        None, description="Paths whose values must be equal in all touchpoints of the sequence, such as product_id."
    )

    @property
    def positive(self) -> list[Step]:
        """Steps for which a touchpoint must exist."""
        return [step for step in self.sequence if isinstance(step, Step)]

    @property
    def closing(self) -> NotStep | None:
        """Last step, if it forbids a touchpoint instead of requiring one."""
        last = self.sequence[-1]
        return last if isinstance(last, NotStep) else None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        for index, step in enumerate(self.sequence[:-1]):
            if isinstance(step, NotStep):
                raise validation_error(
                    "only the last step may be a `not`", "Move it to the end.", "sequence", index, "not"
                )
        first = self.sequence[0]
        assert isinstance(first, Step)
        for gap in ("within", "after_at_least"):
            if getattr(first, gap) is not None:
                raise validation_error(
                    f"the first step cannot have `{gap}`, because no step precedes it",
                    f"Put `{gap}` on the second step, or put a window on the sequence.",
                    *("sequence", 0, gap),
                )
        if self.within:
            self._refuse_steps_outlasting(self.within)
        return self

    def _refuse_steps_outlasting(self, within: str) -> None:
        """Raise if a step takes as long as the window, because the first touchpoint has then always left it."""
        for index, step in enumerate(self.sequence):
            name = "within" if isinstance(step, NotStep) else "after_at_least"
            length = getattr(step, name)
            if length is not None and is_never_longer(within, length):
                raise validation_error(
                    f"`{name}` is not shorter than the window of the sequence ({within}), so it is never true",
                    "Make it shorter, or make the window longer.",
                    *("sequence", index, name),
                )

    def _needs_zone(self) -> bool:
        return super()._needs_zone() or any(_step_needs_zone(step) for step in self.sequence)


def _step_needs_zone(step: Step | NotStep) -> bool:
    if isinstance(step, NotStep):
        return is_calendar_length(step.within) or step.not_.filter_has_dates
    return is_calendar_length(step.within) or is_calendar_length(step.after_at_least) or step.filter_has_dates


class Regularly(Filtered):
    model_config = documented_config(
        "True if enough of the most recent periods contain a matching touchpoint, such as 3 of the last 4 months. "
        "Periods are counted back from now.",
        {"regularly": "Order Completed", "at_least": 3, "of_last": 4, "period": "month"},
    )
    head: ClassVar = "regularly"

    regularly: Events
    at_least: Annotated[int, Field(ge=1)] = Field(
        description="Lowest number of periods that must contain a touchpoint."
    )
    of_last: Annotated[int, Field(ge=1)] = Field(
        description="Number of periods to look at: at most 366 days, 104 weeks or 60 months."
    )
    period: Period = Field(
        description="Length of a period. A day is 24 hours, a week is 7 days of 24 hours, and months follow the "
        "calendar of the timezone."
    )
    timezone: Timezone | None = Field(
        None,
        description="Timezone in which months are counted. Default: the timezone trait of the customer, then the "
        "timezone of the workspace.",
    )

    @model_validator(mode="after")
    def _check_periods(self) -> Self:
        longest = PERIODS_MAX[self.period]
        if self.of_last > longest:
            raise validation_error(f"`of_last` is more than {longest} periods", f"Use {longest} or fewer.", "of_last")
        if self.at_least > self.of_last:
            raise validation_error(
                "`at_least` is greater than `of_last`", "Reduce `at_least`, or increase `of_last`.", "at_least"
            )
        if self.timezone and self.period != "month" and not self.filter_has_dates:
            raise validation_error(
                "`timezone` has no effect, because days and weeks have an exact length", "Remove it.", "timezone"
            )
        return self
