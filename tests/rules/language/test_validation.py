"""Tests of validation errors: an invalid definition is refused with the path of the error and a remedy."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from app.config import Limits
from app.errors import InvalidDefinition
from app.rules.language.definitions import (
    parse_journey,
    parse_rule,
    parse_segment,
    parse_trait,
    parse_value,
    rule_to_json,
)
from tests.support.deep_rules import nested
from tests.support.server_process import ROOT

DID = {"did": "A"}


def did(**modifiers: Any) -> dict[str, Any]:
    return {"did": "A", **{key.rstrip("_"): value for key, value in modifiers.items()}}


def where(comparison: Any, path: str = "p") -> dict[str, Any]:
    return did(where={path: comparison})


def trait(**modifiers: Any) -> dict[str, Any]:
    return {"trait": "plan", **{key.rstrip("_"): value for key, value in modifiers.items()}}


def total(**modifiers: Any) -> dict[str, Any]:
    return {"sum": "total", "of": "A", **{key.rstrip("_"): value for key, value in modifiers.items()}}


def steps(*step_nodes: Any, **modifiers: Any) -> dict[str, Any]:
    return {"sequence": list(step_nodes), **modifiers}


def regularly_node(**modifiers: Any) -> dict[str, Any]:
    return {"regularly": "A", "at_least": 2, "of_last": 3, "period": "week", **modifiers}


NOT_B = {"not": {"did": "B"}, "within": "1h"}
AGGREGATES = ("sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent")

REFUSED_RULES: list[tuple[Any, str | None]] = [
    # not a node
    (None, ""),
    ("A", ""),
    (1, ""),
    (True, ""),
    ([], ""),
    ([DID], ""),
    ({}, ""),
    ({"within": "1d"}, ""),
    ({"dids": "A"}, ""),
    ({"DID": "A"}, ""),
    ({"and": [DID]}, ""),
    ({"all": [DID], "any": [DID]}, ""),
    ({"did": "A", "trait": "plan", "eq": 1}, ""),
    ({"not": DID, "segment": "a"}, ""),
    # heads that a rule cannot have
    ({"count": "A"}, "/count"),
    ({"first_at": "A", "within": "1d"}, "/first_at"),
    ({"all": [DID, {"last_at": "A"}]}, "/all/1/last_at"),
    ({"sum": "total", "of": "A", "count": "A", "gte": 1}, "/count"),
    ({"sum": "total", "avg": "total", "of": "A", "gte": 1}, ""),
    ({"first": "A", "last": "A", "within": "1d"}, ""),
    # boolean algebra
    ({"all": []}, "/all"),
    ({"any": []}, "/any"),
    ({"all": DID}, "/all"),
    ({"any": "A"}, "/any"),
    ({"all": [DID, None]}, "/all/1"),
    ({"all": [DID, "A"]}, "/all/1"),
    ({"all": [[DID]]}, "/all/0"),
    ({"not": [DID]}, "/not"),
    ({"not": None}, "/not"),
    ({"not": {}}, "/not"),
    ({"not": DID, "within": "1d"}, "/within"),
    ({"all": [DID], "at_least": 1}, "/at_least"),
    ({"everyone": False}, "/everyone"),
    ({"everyone": 1}, "/everyone"),
    ({"everyone": "yes"}, "/everyone"),
    ({"everyone": True, "eq": 1}, "/eq"),
    ({"any": [{"all": [{"not": {"did": 1}}]}]}, "/any/0/all/0/not/did"),
    # did: event names
    ({"did": ""}, "/did"),
    ({"did": []}, "/did"),
    ({"did": None}, "/did"),
    ({"did": 1}, "/did"),
    ({"did": {"name": "A"}}, "/did"),
    ({"did": ["A", 1]}, "/did/1"),
    ({"did": ["A", None]}, "/did/1"),
    ({"did": ["A", ""]}, "/did/1"),
    ({"did": ["A", "B", "A"]}, "/did/2"),
    ({"did": ["A", "*"]}, "/did"),
    ({"first": ["*", "A"], "within": "1d"}, "/first"),
    ({"did": [["A"]]}, "/did/0"),
    ({"did": "x" * 201}, "/did"),
    ({"did": "A\0"}, "/did"),
    ({"did": "\ud800"}, "/did"),
    ({"did": ["A", "\udfff"]}, "/did/1"),
    # did: unknown keys
    (did(evnt="A"), "/evnt"),
    (did(of="A"), "/of"),
    (did(after_at_least="1d"), "/after_at_least"),
    (did(period="day"), "/period"),
    (did(ever=True), "/ever"),
    (did(salt="x"), "/salt"),
    (did(same=["p"]), "/same"),
    (did(eq=1), "/eq"),
    (did(held_for="1d"), "/held_for"),
    ({"all": [did(Within="1d")]}, "/all/0/Within"),
    ({"all": [did(**{"a/b~c": 1})]}, "/all/0/a~1b~0c"),
    # did: channel and source
    (did(channel=""), "/channel"),
    (did(channel=[]), "/channel"),
    (did(channel=1), "/channel"),
    (did(channel="In Store"), "/channel"),
    (did(channel=["web", "E-Mail"]), "/channel/1"),
    (did(channel=["web", "web"]), "/channel/1"),
    (did(channel=None), "/channel"),
    (did(channel={"eq": "web"}), "/channel"),
    (did(source=[]), "/source"),
    (did(source=7), "/source"),
    (did(source=["a", ""]), "/source/1"),
    # did: count
    (did(at_least=0), "/at_least"),
    (did(at_least=-1), "/at_least"),
    (did(at_least="2"), "/at_least"),
    (did(at_least=True), "/at_least"),
    (did(at_least=2.0), "/at_least"),
    (did(at_least=Decimal("1.5")), "/at_least"),
    (did(at_least=None), "/at_least"),
    (did(at_least=10**9), "/at_least"),
    (did(at_most=-1), "/at_most"),
    (did(exactly=-1), "/exactly"),
    (did(exactly=[1]), "/exactly"),
    (did(between=[2, 1]), "/between"),
    (did(between=[1]), "/between"),
    (did(between=[1, 2, 3]), "/between"),
    (did(between=3), "/between"),
    (did(between=[1, "2"]), "/between/1"),
    (did(between=[-1, 2]), "/between/0"),
    (did(at_least=1, at_most=2), "/at_most"),
    (did(at_least=1, exactly=1), "/exactly"),
    (did(exactly=1, between=[0, 1]), "/between"),
    # did: lengths
    (did(within=""), "/within"),
    (did(within="0d"), "/within"),
    (did(within="-1d"), "/within"),
    (did(within="1.5d"), "/within"),
    (did(within="01d"), "/within"),
    (did(within="1 d"), "/within"),
    (did(within="d"), "/within"),
    (did(within="90"), "/within"),
    (did(within=90), "/within"),
    (did(within="1D"), "/within"),
    (did(within="1us"), "/within"),
    (did(within="1MO"), "/within"),
    (did(within="1.5mo"), "/within"),
    (did(within="1mo2d"), "/within"),
    (did(within="1201mo"), "/within"),
    (did(before="101y"), "/before"),
    (did(before="0y"), "/before"),
    (did(within="1h30m"), "/within"),
    (did(within="P1D"), "/within"),
    (did(within="36526d"), "/within"),
    (did(within="9" * 30 + "d"), "/within"),
    (did(within="\u0661d"), "/within"),
    (did(within=["1d"]), "/within"),
    (did(within="1d", before="1d"), "/before"),
    (did(within="24h", before="1d"), "/before"),
    (did(within="1h", before="2h"), "/before"),
    (did(within="1y", before="12mo"), "/before"),
    (did(within="3mo", before="1y"), "/before"),
    (did(within="1mo", before="34d"), "/before"),
    (did(within="25d", before="1mo"), "/before"),
    (did(within="1y", before="369d"), "/before"),
    # during
    (did(during=""), "/during"),
    (did(during="tomorrow"), "/during"),
    (did(during="Today"), "/during"),
    (did(during=["today"]), "/during"),
    (did(during=1), "/during"),
    (did(during=True), "/during"),
    (did(during=None), "/during"),
    (did(during={}), "/during/hours"),
    (did(during={"hours": []}), "/during/hours"),
    (did(during={"hours": [9]}), "/during/hours"),
    (did(during={"hours": [9, 17, 18]}), "/during/hours"),
    (did(during={"hours": [9, 9]}), "/during/hours"),
    (did(during={"hours": [0, 24]}), "/during/hours"),
    (did(during={"hours": [24, 0]}), "/during/hours"),
    (did(during={"hours": [-1, 4]}), "/during/hours/0"),
    (did(during={"hours": [9, 25]}), "/during/hours/1"),
    (did(during={"hours": [9, "17"]}), "/during/hours/1"),
    (did(during={"hours": [9, 17.5]}), "/during/hours/1"),
    (did(during={"hours": [False, True]}), "/during/hours/0"),
    (did(during={"hours": [9, 17], "days": ["mon"]}), "/during/days"),
    (did(during={"hour": [9, 17]}), "/during/hours"),
    (did(during="today", before="2d"), "/before"),
    (did(during="yesterday", before="3d"), "/before"),
    (did(during="this_week", before="9d"), "/before"),
    (did(during="last_week", before="16d"), "/before"),
    (did(during="this_month", before="33d"), "/before"),
    (did(during="last_month", before="3mo"), "/before"),
    (did(during="this_year", before="2y"), "/before"),
    (did(during="last_year", before="734d"), "/before"),
    # did: from and to
    (did(from_="yesterday"), "/from"),
    (did(from_="1997-13-01"), "/from"),
    (did(from_="1997-02-29"), "/from"),
    (did(from_="19970101"), "/from"),
    (did(from_="1997-W01-1"), "/from"),
    (did(to="1997-01-01T00:00:00"), "/to"),
    (did(to="1997-01-01 00:00:00Z"), "/to"),
    (did(to="1997-01-01T24:00:01Z"), "/to"),
    (did(to="1997-01-01T00:00:00+24:00"), "/to"),
    (did(to="1997-01-01T00:00Z"), "/to"),
    (did(to="infinity"), "/to"),
    (did(to="0000-01-01"), "/to"),
    (did(to="0001-01-01"), "/to"),
    (did(to="9999-12-31"), "/to"),
    (did(from_=852076800), "/from"),
    (did(from_=None), "/from"),
    (did(from_="1997-01-01", to="1997-01-01"), "/to"),
    (did(from_="1997-01-02", to="1997-01-01"), "/to"),
    (did(from_="1997-01-01T00:00:00Z", to="1997-01-01T01:00:00+02:00"), "/to"),
    (did(from_="1900-01-01", to="2100-01-01"), "/to"),
    (did(from_="1997-01-02", to="1997-01-01T06:00:00Z"), "/to"),
    (did(from_="1997-01-01T05:00:00Z", to="1997-01-01", timezone="America/New_York"), "/to"),
    (did(timezone="Europe/Lisbon"), "/timezone"),
    (did(within="90d", timezone="Europe/Lisbon"), "/timezone"),
    (did(within="90d", before="24h", timezone="UTC"), "/timezone"),
    (did(where={"p": {"gt": 1}}, timezone="UTC"), "/timezone"),
    (did(where={"p": 1}, timezone="UTC"), "/timezone"),
    (did(during="weekend", timezone="Lisbon"), "/timezone"),
    (did(within="1mo", timezone=""), "/timezone"),
    (did(within="1mo", timezone="europe/lisbon"), "/timezone"),
    (did(within="1mo", timezone=None), "/timezone"),
    (did(from_="1997-01-01T00:00:00Z", timezone="Europe/Lisbon"), "/timezone"),
    (did(from_="1997-01-01", timezone="Mars/Base"), "/timezone"),
    (did(from_="1997-01-01", timezone="../../etc/passwd"), "/timezone"),
    (did(from_="1997-01-01", timezone="localtime"), "/timezone"),
    (did(from_="1997-01-01", timezone=2), "/timezone"),
    # where
    (did(where={}), "/where"),
    (did(where=[]), "/where"),
    (did(where="p"), "/where"),
    (did(where={"": 1}), "/where/"),
    (did(where={"a\0": 1}), "/where/a\\0"),
    (where(None), "/where/p"),
    (where([1, 2]), "/where/p"),
    (where([]), "/where/p"),
    (where({}), "/where/p"),
    (where({"q": 1}), "/where/p/q"),
    (where({"a": {"b": 1}}), "/where/p/a"),
    (where(1, "touchpoint.id"), "/where/touchpoint.id"),
    (where(1, "touchpoint."), "/where/touchpoint."),
    (where(1, "touchpoint.name.first"), "/where/touchpoint.name.first"),
    (where(1, "x" * 501), "/where/" + "x" * 80),
    (where({"matches": "(x"}), "/where/p/matches"),
    (where({"matches": "(?=x)"}), "/where/p/matches"),
    (where({"any_of": []}), "/where/p/any_of"),
    (where({"within_last": "1 d"}), "/where/p/within_last"),
    (where({"timezone": "UTC", "within_last": "1d"}), "/where/p/timezone"),
    (where({"held_for": "1d"}), "/where/p/held_for"),
    (where({"eq": 1}, "a/b"), None),
    (where({"eq": [1]}, "a/b"), "/where/a~1b/eq"),
    (where({"eq": None}), "/where/p/eq"),
    (where(float("nan")), "/where/p"),
    (where(float("inf")), "/where/p"),
    (where(Decimal("NaN")), "/where/p"),
    (where(Decimal("1E+400")), "/where/p"),
    (where(Decimal("1E-400")), "/where/p"),
    (where(10**400), "/where/p"),
    (where("a\0b"), "/where/p"),
    (where({"in": ["a", "\ud912"]}), "/where/p/in/1"),
    (where({"trait": "total"}), "/where/p/trait"),
    (where({"trait": "total", "eq": 1}), "/where/p/trait"),
    (where({"sum": "total", "of": "A"}), "/where/p/sum"),
    (where({"first_at": "A"}), "/where/p/first_at"),
    # operands that are value expressions
    (trait(gt={}), "/gt"),
    (trait(gt={"did": "A"}), "/gt/did"),
    (trait(gt={"segment": "a"}), "/gt/segment"),
    (trait(gt={"first": "A", "within": "1d"}), "/gt/first"),
    (trait(gt={"value": 1}), "/gt"),
    (trait(gt={"trait": ""}), "/gt/trait"),
    (trait(gt={"trait": 1}), "/gt/trait"),
    (trait(gt={"trait": "x", "of": "A"}), "/gt/of"),
    (trait(gt={"trait": "x", "eq": 1}), "/gt/eq"),
    (trait(gt={"trait": "x", "held_for": "1d"}), "/gt/held_for"),
    (trait(gt={"trait": "x", "sum": "total"}), "/gt"),
    (trait(gt={"sum": "total"}), "/gt/of"),
    (trait(gt={"of": "A"}), "/gt"),
    (trait(gt={"sum": "total", "of": "A", "gte": 1}), "/gt/gte"),
    (trait(gt={"sum": "total", "of": "A", "ignore_case": True}), "/gt/ignore_case"),
    (trait(gt={"sum": "total", "of": "A", "at_least": 1}), "/gt/at_least"),
    (trait(gt={"sum": "total", "of": "A", "within": "1"}), "/gt/within"),
    (trait(gt={"sum": "total", "of": "A", "timezone": "UTC"}), "/gt/timezone"),
    (trait(gt={"sum": ["total"], "of": "A"}), "/gt/sum"),
    (trait(gt={"count": "A", "of": "B"}), "/gt/of"),
    (trait(gt={"count": "A", "at_least": 2}), "/gt/at_least"),
    (trait(gt={"count": ""}), "/gt/count"),
    (trait(gt={"count": "A", "within": "1h", "before": "1h"}), "/gt/before"),
    (trait(gt={"count": "A", "where": {"p": {"gt": {"count": "B", "x": 1}}}}), "/gt/where/p/gt/x"),
    (trait(gt={"count": "A", "where": {"p": {"gt": {"did": "B"}}}}), "/gt/where/p/gt/did"),
    (trait(after={"last_at": "A", "where": []}), "/after/where"),
    (trait(after={"not": DID}), "/after/not"),
    (where({"gt": {"trait": ["total"]}}), "/where/p/gt/trait"),
    (where({"gt": {"sum": "total", "of": ""}}), "/where/p/gt/of"),
    (trait(in_=["a", {"trait": "x"}]), "/in/1"),
    (trait(in_={"trait": "x"}), "/in"),
    (trait(any_of=[{"count": "A"}]), "/any_of/0"),
    (trait(between=[{"trait": "x"}, 1]), "/between/0"),
    (trait(between=[1, {"count": "A"}]), "/between/1"),
    (trait(between={"trait": "x"}), "/between"),
    (trait(matches={"trait": "x"}), "/matches"),
    (trait(exists={"trait": "x"}), "/exists"),
    (trait(within_last={"trait": "x"}), "/within_last"),
    (trait(eq={"trait": "x"}, in_=[1], gt=0), "/gt"),
    # comparisons
    (trait(), ""),
    ({"trait": "", "eq": 1}, "/trait"),
    ({"trait": 1, "eq": 1}, "/trait"),
    ({"trait": ["a"], "eq": 1}, "/trait"),
    ({"trait": None, "eq": 1}, "/trait"),
    (trait(ignore_case=True), ""),
    (trait(value=1), "/value"),
    (trait(held_for="d"), "/held_for"),
    (trait(held_for=30), "/held_for"),
    (trait(changed_within="1"), "/changed_within"),
    (trait(held_for="1d", changed_within="1d"), "/changed_within"),
    (trait(held_for="2mo", changed_within="1mo"), "/changed_within"),
    (trait(held_for="1d", ignore_case=True), "/ignore_case"),
    (trait(held_for="1d", timezone="UTC"), "/timezone"),
    (trait(eq="a", timezone="UTC"), "/timezone"),
    (trait(held_for="1d", before="1d"), "/before"),
    (trait(eq=1, of="A"), "/of"),
    (trait(eq=1, during="today"), "/during"),
    # dates
    (trait(after="yesterday"), "/after"),
    (trait(after="1997-02-29"), "/after"),
    (trait(after="1997-01-01T00:00:00"), "/after"),
    (trait(after=852076800), "/after"),
    (trait(after=True), "/after"),
    (trait(after=["1997-01-01"]), "/after"),
    (trait(before_date=""), "/before_date"),
    (trait(before_date=None), "/before_date"),
    (trait(after="1997-01-01", before_date="1997-01-01"), "/before_date"),
    (trait(after="1997-01-02", before_date="1997-01-01"), "/before_date"),
    (trait(after="1997-01-01T00:00:00Z", before_date="1997-01-01T01:00:00+01:00"), "/before_date"),
    (trait(after="1997-01-03", before_date="1997-01-01T00:00:00Z"), "/before_date"),
    (trait(within_last="0d"), "/within_last"),
    (trait(within_last=7), "/within_last"),
    (trait(within_next="1 week"), "/within_next"),
    (trait(within_next=["1d"]), "/within_next"),
    (trait(within_last="1d", within_next="1d"), "/within_next"),
    (trait(anniversary_within="0mo"), "/anniversary_within"),
    (trait(anniversary_within=True), "/anniversary_within"),
    (trait(within_last="1d", ignore_case=True), "/ignore_case"),
    (trait(after="1997-01-01", ignore_case=True), "/ignore_case"),
    (trait(exists=True, within_last="1d"), "/exists"),
    (trait(exists=False, after="1997-01-01"), "/exists"),
    (trait(eq="1997-01-01", after="1996-01-01"), "/after"),
    ({"all": [trait(anniversary_within="1d")] * 6}, ""),
    (did(where={name: {"anniversary_within": "1d"} for name in "abcdef"}), ""),
    # lists and patterns
    (trait(any_of=[]), "/any_of"),
    (trait(any_of="a"), "/any_of"),
    (trait(any_of=["a", "a"]), "/any_of/1"),
    (trait(all_of=[1, [2]]), "/all_of/1"),
    (trait(all_of=[None]), "/all_of/0"),
    (trait(none_of={}), "/none_of"),
    (trait(none_of=[1], ignore_case=True), "/ignore_case"),
    (trait(exists=True, any_of=["a"]), "/exists"),
    (trait(exists=True, matches="a"), "/exists"),
    (trait(exists=False, none_of=["a"]), "/exists"),
    (trait(eq="a", matches="a"), "/matches"),
    (trait(in_=["a"], any_of=["a"]), "/any_of"),
    (trait(matches=""), "/matches"),
    (trait(matches=1), "/matches"),
    (trait(matches=["a"]), "/matches"),
    (trait(matches="["), "/matches"),
    (trait(matches="a**"), "/matches"),
    (trait(matches="(?<=a)b"), "/matches"),
    (trait(matches="(a)\\1"), "/matches"),
    (trait(matches="a" * 501), "/matches"),
    (trait(matches="((a{1000}){1000}){1000}"), "/matches"),
    (trait(within="1d"), "/within"),
    (trait(eq=[]), "/eq"),
    (trait(eq={}), "/eq"),
    (trait(eq=None), "/eq"),
    (trait(ne=None), "/ne"),
    (trait(gt=True), "/gt"),
    (trait(gt=[1]), "/gt"),
    (trait(lte=None), "/lte"),
    (trait(in_=[]), "/in"),
    (trait(in_="pro"), "/in"),
    (trait(in_=["pro", None]), "/in/1"),
    (trait(in_=["pro", ["team"]]), "/in/1"),
    (trait(in_=["pro", "pro"]), "/in/1"),
    (trait(in_=[1, Decimal("1.0")]), "/in/1"),
    (trait(not_in=[True, True]), "/not_in/1"),
    (trait(between=[1]), "/between"),
    (trait(between=5), "/between"),
    (trait(between=[2, 1]), "/between"),
    (trait(between=["b", "a"]), "/between"),
    (trait(between=[1, "a"]), "/between"),
    (trait(between=["10", "9"]), "/between"),
    (trait(between=[False, True]), "/between"),
    (trait(contains=""), "/contains"),
    (trait(contains=[1]), "/contains"),
    (trait(not_contains=""), "/not_contains"),
    (trait(starts_with=""), "/starts_with"),
    (trait(starts_with=1), "/starts_with"),
    (trait(ends_with=["x"]), "/ends_with"),
    (trait(exists="yes"), "/exists"),
    (trait(exists=1), "/exists"),
    (trait(exists=None), "/exists"),
    (trait(exists=True, eq=1), "/exists"),
    (trait(exists=True, gt=1), "/exists"),
    (trait(exists=False, ne=1), "/exists"),
    (trait(exists=False, eq=1), "/exists"),
    (trait(eq=1, gt=0), "/gt"),
    (trait(eq=1, ne=2), "/ne"),
    (trait(in_=[1], not_in=[2]), "/not_in"),
    (trait(ne=1, not_in=[2]), "/ne"),
    (trait(gt=1, gte=2), "/gte"),
    (trait(lt=1, lte=2), "/lte"),
    (trait(between=[1, 2], lt=2), "/lt"),
    (trait(gt=2, lt=1), "/lt"),
    (trait(gt=1, lt=1), "/lt"),
    (trait(gte=1, lt=1), "/lt"),
    (trait(gt=1, lt="b"), "/lt"),
    (trait(eq=1, ignore_case=True), "/ignore_case"),
    (trait(gt="10", ignore_case=True), "/ignore_case"),
    (trait(exists=True, ignore_case=True), "/ignore_case"),
    (trait(in_=[1, True], ignore_case=True), "/ignore_case"),
    (trait(eq="a", ignore_case=False), "/ignore_case"),
    (trait(eq="a", ignore_case="true"), "/ignore_case"),
    # segment and stage
    ({"segment": ""}, "/segment"),
    ({"segment": "Repeat Buyers"}, "/segment"),
    ({"segment": ["a", "b"]}, "/segment"),
    ({"segment": "a" * 65}, "/segment"),
    ({"segment": "a__b"}, "/segment"),
    ({"segment": "a\n"}, "/segment"),
    ({"segment": "a", "ever": False}, "/ever"),
    ({"segment": "a", "ever": 1}, "/ever"),
    ({"segment": "a", "ever": True, "for_at_least": "1d"}, "/for_at_least"),
    ({"segment": "a", "ever": True, "entered_within": "1d"}, "/entered_within"),
    ({"segment": "a", "for_at_least": "1d", "entered_within": "1d"}, "/entered_within"),
    ({"segment": "a", "for_at_least": "2y", "entered_within": "12mo"}, "/entered_within"),
    ({"segment": "a", "for_at_least": "0d"}, "/for_at_least"),
    ({"segment": "a", "entered_within": 7}, "/entered_within"),
    ({"segment": "a", "timezone": "UTC"}, "/timezone"),
    ({"segment": "a", "for_at_least": "30d", "timezone": "UTC"}, "/timezone"),
    ({"segment": "a", "ever": True, "timezone": "UTC"}, "/timezone"),
    ({"segment": "a", "within": "1d"}, "/within"),
    ({"segment": "a", "held_for": "1d"}, "/held_for"),
    ({"segment": "a", "journey": "b"}, "/journey"),
    ({"stage": []}, "/stage"),
    ({"stage": 1}, "/stage"),
    ({"stage": ["a", "a"]}, "/stage/1"),
    ({"stage": ["a", "B"]}, "/stage/1"),
    ({"stage": "a", "journey": ""}, "/journey"),
    ({"stage": "a", "journey": ["b"]}, "/journey"),
    ({"stage": "a", "ever": "yes"}, "/ever"),
    ({"stage": "a", "ever": True, "entered_within": "1d"}, "/entered_within"),
    ({"stage": "a", "for_at_least": "1w", "entered_within": "7d"}, "/entered_within"),
    ({"stage": "a", "entered_within": ""}, "/entered_within"),
    ({"stage": "a", "timezone": "UTC"}, "/timezone"),
    ({"not": {"stage": "a", "for_at_least": "1"}}, "/not/for_at_least"),
    # first and last
    *(({head: "A"}, "") for head in ("first", "last")),
    ({"first": "A", "timezone": "UTC"}, "/timezone"),
    ({"first": "A", "where": {"p": 1}}, ""),
    ({"first": "A", "within": "1d", "at_least": 1}, "/at_least"),
    ({"last": "A", "within": "1d", "eq": 1}, "/eq"),
    ({"last": "A", "within": "1d", "before": "1d"}, "/before"),
    ({"last": "", "within": "1d"}, "/last"),
    ({"last": [], "within": "1d"}, "/last"),
    # aggregates
    *(({head: "p"}, "/of") for head in AGGREGATES),
    *(({head: "p", "of": "A"}, "") for head in AGGREGATES),
    *(({head: "touchpoint.id", "of": "A", "gte": 1}, f"/{head}") for head in AGGREGATES),
    (total(within="1d"), ""),
    (total(eq=1, at_least=1), "/at_least"),
    (total(gte=1, of=""), "/of"),
    (total(gte=1, of=["A", "A"]), "/of/1"),
    (total(gte=1, of=["*", "A"]), "/of"),
    (total(gte=1, of=None), "/of"),
    (total(gte=1, lt=1), "/lt"),
    (total(gte=1, within="1d", before="2d"), "/before"),
    (total(gte=1, timezone="UTC"), "/timezone"),
    (total(gte=1, held_for="1d"), "/held_for"),
    (total(gte=1, changed_within="1d"), "/changed_within"),
    (total(gte=1, where={"p": {}}), "/where/p"),
    (total(gte=1, sum=""), "/sum"),
    (total(gte=1, sum=1), "/sum"),
    (total(gte={"sum": "total", "of": "A", "of_last": 2}), "/gte/of_last"),
    # sequences
    (steps(), "/sequence"),
    (steps(DID), "/sequence"),
    (steps(*[DID] * 11), "/sequence"),
    ({"sequence": DID}, "/sequence"),
    ({"sequence": "A"}, "/sequence"),
    (steps(DID, "B"), "/sequence/1"),
    (steps(DID, None), "/sequence/1"),
    (steps(DID, {}), "/sequence/1"),
    (steps(DID, [DID]), "/sequence/1"),
    (steps(DID, {"trait": "a", "eq": 1}), "/sequence/1/trait"),
    (steps(DID, {"all": [DID]}), "/sequence/1/all"),
    (steps(DID, {"did": "B", "not": {"did": "C"}}), "/sequence/1"),
    (steps(DID, {"did": 1}), "/sequence/1/did"),
    (steps(DID, {"did": "B", "at_least": 2}), "/sequence/1/at_least"),
    (steps(DID, {"did": "B", "before": "1d"}), "/sequence/1/before"),
    (steps(DID, {"did": "B", "timezone": "UTC"}), "/sequence/1/timezone"),
    (steps(DID, {"did": "B", "where": {"p": {"eq": 1, "x": 2}}}), "/sequence/1/where/p/x"),
    (steps(DID, {"did": "B", "within": "1h", "after_at_least": "1h"}), "/sequence/1/after_at_least"),
    (steps(DID, {"did": "B", "within": "1mo", "after_at_least": "1y"}), "/sequence/1/after_at_least"),
    (steps({"did": "A", "within": "1h"}, DID), "/sequence/0/within"),
    (steps({"did": "A", "after_at_least": "1h"}, DID), "/sequence/0/after_at_least"),
    (steps(NOT_B, DID), "/sequence/0/not"),
    (steps(DID, NOT_B, DID), "/sequence/1/not"),
    (steps(NOT_B, NOT_B), "/sequence/0/not"),
    (steps(NOT_B), "/sequence"),
    (steps(DID, {"not": {"did": "B"}}), "/sequence/1/within"),
    (steps(DID, {"not": DID, "within": "1h", "after_at_least": "1m"}), "/sequence/1/after_at_least"),
    (steps(DID, {"not": {"did": "B", "within": "1h"}, "within": "1h"}), "/sequence/1/not/within"),
    (steps(DID, {"not": {"segment": "a"}, "within": "1h"}), "/sequence/1/not/segment"),
    (steps(DID, {"not": [DID], "within": "1h"}), "/sequence/1/not"),
    (steps(DID, {"not": {"did": []}, "within": "1h"}), "/sequence/1/not/did"),
    (steps(DID, {"not": {"did": "B", "where": {"p": None}}, "within": "1h"}), "/sequence/1/not/where/p"),
    (steps(DID, DID, same=[]), "/same"),
    (steps(DID, DID, same="p"), "/same"),
    (steps(DID, DID, same=["p", "p"]), "/same/1"),
    (steps(DID, DID, same=["p", 1]), "/same/1"),
    (steps(DID, DID, same=["touchpoint.x"]), "/same/0"),
    (steps(DID, DID, same=list("abcdef")), "/same/5"),
    (steps(DID, DID, where={"p": 1}), "/where"),
    (steps(DID, DID, channel="web"), "/channel"),
    (steps(DID, DID, at_least=2), "/at_least"),
    (steps(DID, DID, within="1h", before="1h"), "/before"),
    (steps(DID, DID, timezone="UTC"), "/timezone"),
    # regularly
    ({"regularly": "A"}, "/at_least"),
    ({"regularly": "A", "at_least": 1, "of_last": 2}, "/period"),
    ({"regularly": "A", "at_least": 1, "period": "day"}, "/of_last"),
    (regularly_node(at_least=0), "/at_least"),
    (regularly_node(at_least=4), "/at_least"),
    (regularly_node(at_least=True), "/at_least"),
    (regularly_node(at_least="2"), "/at_least"),
    (regularly_node(of_last=0), "/of_last"),
    (regularly_node(of_last=2.5), "/of_last"),
    (regularly_node(of_last=105), "/of_last"),
    (regularly_node(of_last=367, period="day"), "/of_last"),
    (regularly_node(of_last=61, period="month"), "/of_last"),
    (regularly_node(of_last=10**30), "/of_last"),
    (regularly_node(period="year"), "/period"),
    (regularly_node(period="weeks"), "/period"),
    (regularly_node(period=["week"]), "/period"),
    (regularly_node(period=None), "/period"),
    (regularly_node(within="90d"), "/within"),
    (regularly_node(during="today"), "/during"),
    (regularly_node(between=[1, 2]), "/between"),
    (regularly_node(timezone="UTC"), "/timezone"),
    (regularly_node(period="day", timezone="UTC"), "/timezone"),
    (regularly_node(regularly=""), "/regularly"),
    # bucket
    ({"bucket": 50}, "/bucket"),
    ({"bucket": []}, "/bucket"),
    ({"bucket": [50]}, "/bucket"),
    ({"bucket": [0, 50, 100]}, "/bucket"),
    ({"bucket": [50, 50]}, "/bucket"),
    ({"bucket": [60, 50]}, "/bucket"),
    ({"bucket": [-1, 50]}, "/bucket/0"),
    ({"bucket": [0, 101]}, "/bucket/1"),
    ({"bucket": [0, 33.3]}, "/bucket/1"),
    ({"bucket": [False, True]}, "/bucket/0"),
    ({"bucket": ["0", "50"]}, "/bucket/0"),
    ({"bucket": [0, 50], "salt": 1}, "/salt"),
    ({"bucket": [0, 50], "salt": None}, "/salt"),
    ({"bucket": [0, 50], "salt": "s" * 201}, "/salt"),
    ({"bucket": [0, 50], "salt": "a\0"}, "/salt"),
    ({"bucket": [0, 50], "seed": "x"}, "/seed"),
    # not JSON
    ({"did": b"A"}, "/did"),
    ({"did": "A", 1: 2}, "/1"),
    (where({1, 2}), "/where/p"),
]


@pytest.mark.parametrize(("rule", "path"), [(rule, path) for rule, path in REFUSED_RULES if path is not None])
def test_invalid_rule_is_refused_with_path_and_remedy(rule: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_rule(rule, "/rule")
    assert caught.value.path == f"/rule{path}"
    assert caught.value.remedy
    msgspec.json.encode(caught.value.to_problem())


def test_table_of_refused_rules_is_long() -> None:
    assert len(REFUSED_RULES) >= 400


@pytest.mark.parametrize(
    ("rule", "expected_text"),
    [
        ({"sum": "total", "of": "A"}, "the comparison has no operator"),
        ({"count": "A"}, 'Use {"did": ...} with `at_least`'),
        ({"first_at": "A"}, "put it under `after` or `before_date` of a trait"),
        (did(during="to_day"), "Did you mean `today`?"),
        (did(witin="3mo"), "Did you mean `within`?"),
        (trait(eq="a", ignorecase=True), "Did you mean `ignore_case`?"),
        (trait(gt={"summ": "x", "of": "A"}), "Did you mean `sum`?"),
        (trait(gt={"sum": "x", "of": "A", "gte": 1}), "a value expression cannot contain a comparison"),
        (trait(gt={"did": "x"}), 'use {"count": ...}'),
        (where({"trait": "total"}), '{"eq": {"trait": ...}}'),
        (where({"start_with": "x"}), "Did you mean `starts_with`?"),
        (trait(in_=[{"trait": "x"}]), "one `eq` for each of them, under `any`"),
        (trait(between=[1, {"trait": "x"}]), "Use `gte` and `lte`"),
        (trait(matches="(?=a)"), "RE2 syntax"),
        (regularly_node(period="weekly"), "Did you mean `week`?"),
        (steps(DID, {"did": "B", "after_atleast": "1h"}), "Did you mean `after_at_least`?"),
        ({"segment": "a", "entered_with": "1d"}, "Did you mean `entered_within`?"),
        ({"sequence": [DID, {"not": {"did": "A", "chanel": "web"}, "within": "1d"}]}, "Did you mean `channel`?"),
        ({"dids": "A"}, "Did you mean `did`?"),
        (did(qqq=1), "a `did` node has no key `qqq`"),
        ({"bucket": [0, 50], "salt": "s" * 201}, "the value has more than 200 characters"),
        (steps(*[DID] * 11), "the value has more than 10 items"),
    ],
)
def test_error_text_names_problem_and_remedy(rule: Any, expected_text: str) -> None:
    with pytest.raises(InvalidDefinition, match="/rule") as caught:
        parse_rule(rule)
    assert expected_text in str(caught.value)


@pytest.mark.parametrize("head", ["not", "all", "where", "gt"])
def test_rule_with_a_million_levels_is_refused(head: str) -> None:
    """Use a separate process, because such a rule takes 300 MB of memory."""
    command = [sys.executable, "-m", "tests.support.deep_rules", head]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr.strip() == "refused"


def test_rule_depth_and_size_limits_are_exact() -> None:
    limits = Limits.model_construct(rule_nodes_max=10, rule_depth_levels_max=4)
    parse_rule(nested(4, "not"), limits=limits)
    with pytest.raises(InvalidDefinition, match="deeper"):
        parse_rule(nested(5, "not"), limits=limits)
    parse_rule({"all": [DID] * 9}, limits=limits)
    with pytest.raises(InvalidDefinition, match="larger"):
        parse_rule({"all": [DID] * 10}, limits=limits)
    parse_rule(trait(in_=list(range(190))), limits=limits)
    with pytest.raises(InvalidDefinition, match="larger"):
        parse_rule(trait(in_=list(range(10**5))), limits=limits)


def test_value_expressions_and_steps_count_as_nodes() -> None:
    limits = Limits.model_construct(rule_nodes_max=10, rule_depth_levels_max=4)
    parse_rule(steps(*[DID] * 9), limits=limits)
    with pytest.raises(InvalidDefinition, match="larger"):
        parse_rule(steps(*[DID] * 10), limits=limits)
    conditions = {f"p{number}": {"gt": {"count": "A"}} for number in range(10)}
    parse_rule(did(where={path: conditions[path] for path in list(conditions)[:9]}), limits=limits)
    with pytest.raises(InvalidDefinition, match="larger"):
        parse_rule(did(where=conditions), limits=limits)
    parse_rule(trait(gt={"count": "A", "where": {"p": {"gt": {"count": "B"}}}}), limits=limits)
    with pytest.raises(InvalidDefinition, match="deeper"):
        parse_rule({"not": trait(gt={"count": "A", "where": {"p": {"gt": {"count": "B"}}}})}, limits=limits)


def test_rule_may_have_five_anniversaries() -> None:
    anniversaries = {"any": [trait(anniversary_within=f"{days}d") for days in range(1, 6)]}
    parse_rule(anniversaries)
    parse_journey({"key": "j", "stages": [{"key": "s", "rule": anniversaries}, {"key": "t", "rule": anniversaries}]})
    with pytest.raises(InvalidDefinition, match="more than 5 `anniversary_within`"):
        parse_rule({"all": [anniversaries, where({"anniversary_within": "1d"})]})


ACCEPTED_RULES: list[Any] = [
    did(within="1mo", timezone="Europe/Lisbon"),
    did(within="2mo", before="30d"),
    did(within="1mo", before="30d"),
    did(from_="1997-01-01", within="1d"),
    did(from_="1997-01-01T05:00:00Z", to="1997-01-01"),
    did(during={"hours": [22, 6]}, timezone="America/New_York"),
    did(during="today", before="1d"),
    did(during="weekend", before="10y"),
    did(where={"touchpoint.name": "A", "p": {"within_last": "1d"}}, timezone="UTC"),
    did(where={"touchpoint": 1, "traits.touchpoint.x": 1}),
    trait(exists=True, none_of=["a"]),
    trait(exists=True, ne={"trait": "x"}),
    trait(eq={"trait": "x"}, ignore_case=True),
    trait(eq={"trait": "x"}, gt=5),
    trait(gt={"trait": "x"}, gte=5, lt={"count": "A"}, lte=9),
    trait(in_=["1997-01-01", "1998-01-01"], within_last="30d"),
    trait(after="1997-01-01", before_date="1997-01-01T12:00:00Z"),
    trait(held_for="1d", changed_within="2d"),
    trait(eq="a", held_for="2d", changed_within="1d"),
    trait(matches="^(a|b)+$", ignore_case=True),
    trait(matches="a" * 500),
    trait(after={"first_at": "A", "during": "weekend", "timezone": "UTC"}),
    {"last_value": "renews", "of": "A", "within_next": "7d", "timezone": "UTC"},
    steps(DID, {"did": "B", "within": "1mo"}, timezone="UTC"),
    steps(DID, {"not": {"did": "B", "where": {"p": {"after": "1997-01-01"}}}, "within": "1d"}, timezone="UTC"),
    steps(*[DID] * 10, same=list("abcde")),
    regularly_node(of_last=104),
    regularly_node(of_last=60, period="month", timezone="UTC"),
    {"segment": "a", "for_at_least": "1d", "entered_within": "1mo", "timezone": "UTC"},
    {"bucket": [0, 100]},
]


@pytest.mark.parametrize("rule", ACCEPTED_RULES, ids=str)
def test_valid_rule_is_serialized_as_written(rule: Any) -> None:
    assert rule_to_json(parse_rule(rule)) == rule


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1, ""),
        ("A", ""),
        ([], ""),
        ({}, ""),
        ({"trait": "plan"}, "/trait"),
        ({"did": "A"}, "/did"),
        ({"sum": "total"}, "/of"),
        ({"sum": "total", "of": "A", "gt": 1}, "/gt"),
        ({"sum": "total", "count": "A"}, ""),
        ({"count": "A", "where": {"p": {"eq": {"trait": 1}}}}, "/where/p/eq/trait"),
        ({"count": "A", "timezone": "UTC"}, "/timezone"),
        ({"first_at": "A", "during": "now"}, "/during"),
    ],
)
def test_invalid_value_expression_is_refused_with_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_value(value)
    assert caught.value.path == f"/value{path}"
    assert caught.value.remedy


SEGMENT = {"key": "a", "name": "A", "description": "", "owner": "", "rule": DID}
STAGE = {"key": "s", "name": "S", "rule": DID}
JOURNEY = {"key": "j", "name": "J", "stages": [STAGE]}


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ([], ""),
        (None, ""),
        ({}, "/key"),
        ({"key": "a"}, "/rule"),
        ({**SEGMENT, "key": "A"}, "/key"),
        ({**SEGMENT, "key": 1}, "/key"),
        ({**SEGMENT, "name": 1}, "/name"),
        ({**SEGMENT, "name": "n" * 201}, "/name"),
        ({**SEGMENT, "name": "\0"}, "/name"),
        ({**SEGMENT, "owner": None}, "/owner"),
        ({**SEGMENT, "color": "red"}, "/color"),
        ({**SEGMENT, "note": "n" * 501}, "/note"),
        ({**SEGMENT, "note": 1}, "/note"),
        ({**SEGMENT, "rule": {"all": [{"did": 1}]}}, "/rule/all/0/did"),
        ({**SEGMENT, "rule": {"all": [{"did": "A", "x": 1}]}}, "/rule/all/0/x"),
        ({**SEGMENT, "rule": None}, "/rule"),
    ],
)
def test_invalid_segment_is_refused_with_path(definition: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_segment(definition)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ([], ""),
        ({**JOURNEY, "stages": []}, "/stages"),
        ({**JOURNEY, "stages": {}}, "/stages"),
        ({**JOURNEY, "stages": [STAGE, 1]}, "/stages/1"),
        ({**JOURNEY, "stages": [STAGE, STAGE]}, "/stages/1/key"),
        ({**JOURNEY, "stages": [STAGE] * 51}, "/stages"),
        ({**JOURNEY, "stages": [{**STAGE, "key": "S S"}]}, "/stages/0/key"),
        ({**JOURNEY, "stages": [{**STAGE, "rule": {"not": {"did": ""}}}]}, "/stages/0/rule/not/did"),
        ({**JOURNEY, "stages": [STAGE, {**STAGE, "rule": {}}]}, "/stages/1/rule"),
        ({**JOURNEY, "stages": [STAGE, {"key": "t"}]}, "/stages/1/rule"),
        ({**JOURNEY, "rule": DID}, "/rule"),
    ],
)
def test_invalid_journey_is_refused_with_path(definition: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_journey(definition)
    assert caught.value.path == path


TRAIT = {"key": "orders", "value": {"count": "Order Completed"}}


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ([], ""),
        ({"key": "orders"}, "/value"),
        ({**TRAIT, "key": "Orders"}, "/key"),
        ({**TRAIT, "rule": DID}, "/rule"),
        ({**TRAIT, "note": None}, "/note"),
        ({**TRAIT, "value": 1}, "/value"),
        ({**TRAIT, "value": DID}, "/value/did"),
        ({**TRAIT, "value": {"trait": "plan"}}, "/value/trait"),
        ({**TRAIT, "value": {"sum": "total", "of": "A", "gte": 1}}, "/value/gte"),
        ({**TRAIT, "value": {"count": "A", "where": {"p": {"in": [{"trait": "x"}]}}}}, "/value/where/p/in/0"),
    ],
)
def test_invalid_computed_trait_is_refused_with_path(definition: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_trait(definition)
    assert caught.value.path == path
    assert caught.value.remedy


def test_note_is_parsed() -> None:
    assert parse_segment({**SEGMENT, "note": "why"}).note == "why"
    assert parse_journey({**JOURNEY, "note": "n" * 500}).note == "n" * 500
    assert parse_trait(TRAIT).note == ""


def test_name_defaults_to_key() -> None:
    assert parse_trait(TRAIT).name == "orders"
    assert parse_segment({"key": "a", "rule": DID}).name == "a"
    assert parse_journey({"key": "j", "stages": [{"key": "s", "rule": DID}]}).stages[0].name == "s"
