"""Everything that is no rule, or not yet, is refused where it stands and with a remedy."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from app.config import Limits
from app.errors import InvalidDefinition
from app.rules import parse_journey, parse_rule, parse_segment

DID = {"did": "A"}


def did(**more: Any) -> dict[str, Any]:
    return {"did": "A", **{key.rstrip("_"): value for key, value in more.items()}}


def where(asked: Any, path: str = "p") -> dict[str, Any]:
    return did(where={path: asked})


def trait(**more: Any) -> dict[str, Any]:
    return {"trait": "plan", **{key.rstrip("_"): value for key, value in more.items()}}


REFUSED: list[tuple[Any, str]] = [
    # no node at all
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
    # heads that come later
    *(({head: "A"}, f"/{head}") for head in ("first", "last", "sum", "avg", "min", "max", "distinct", "first_value")),
    *(({head: "A"}, f"/{head}") for head in ("last_value", "most_frequent", "sequence", "regularly", "bucket")),
    *(({head: "A"}, f"/{head}") for head in ("count", "first_at", "last_at")),
    ({"first": "A", "within": "1d"}, "/first"),
    ({"sum": "total", "of": "A", "gte": 1}, "/sum"),
    ({"all": [DID, {"bucket": [0, 50]}]}, "/all/1/bucket"),
    ({"not": {"regularly": "A"}}, "/not/regularly"),
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
    # did: which event
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
    ({"did": [["A"]]}, "/did/0"),
    ({"did": "x" * 201}, "/did"),
    ({"did": "A\0"}, "/did"),
    ({"did": "\ud800"}, "/did"),
    ({"did": ["A", "\udfff"]}, "/did/1"),
    # did: unknown keys
    (did(evnt="A"), "/evnt"),
    (did(during="today"), "/during"),
    (did(of="A"), "/of"),
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
    (did(within="1mo"), "/within"),
    (did(before="2y"), "/before"),
    (did(within="1h30m"), "/within"),
    (did(within="P1D"), "/within"),
    (did(within="36526d"), "/within"),
    (did(within="9" * 30 + "d"), "/within"),
    (did(within="\u0661d"), "/within"),
    (did(within=["1d"]), "/within"),
    (did(within="1d", before="1d"), "/before"),
    (did(within="24h", before="1d"), "/before"),
    (did(within="1h", before="2h"), "/before"),
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
    (did(from_="1997-01-01", within="1d"), "/from"),
    (did(to="1997-01-01", before="1d"), "/to"),
    (did(timezone="Europe/Lisbon"), "/timezone"),
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
    (where({"matches": "x.*"}), "/where/p/matches"),
    (where({"any_of": [1]}), "/where/p/any_of"),
    (where({"within_last": "1d"}), "/where/p/within_last"),
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
    (where({"gt": {"trait": "total"}}), "/where/p/gt"),
    (where({"gt": {"sum": "total", "of": "A"}}), "/where/p/gt"),
    # comparisons
    (trait(), ""),
    ({"trait": "", "eq": 1}, "/trait"),
    ({"trait": 1, "eq": 1}, "/trait"),
    ({"trait": ["a"], "eq": 1}, "/trait"),
    ({"trait": None, "eq": 1}, "/trait"),
    (trait(ignore_case=True), ""),
    (trait(value=1), "/value"),
    (trait(held_for="1d"), "/held_for"),
    (trait(eq=1, held_for="1d"), "/held_for"),
    (trait(changed_within="1d"), "/changed_within"),
    (trait(after="1997-01-01"), "/after"),
    (trait(none_of=["a"]), "/none_of"),
    (trait(anniversary_within="1d"), "/anniversary_within"),
    (trait(matches="a"), "/matches"),
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
    (trait(in_=["pro", ["team"]]), "/in"),
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
    ({"segment": "a", "ever": True}, "/ever"),
    ({"segment": "a", "for_at_least": "1d"}, "/for_at_least"),
    ({"segment": "a", "entered_within": "1d"}, "/entered_within"),
    ({"segment": "a", "journey": "b"}, "/journey"),
    ({"stage": []}, "/stage"),
    ({"stage": 1}, "/stage"),
    ({"stage": ["a", "a"]}, "/stage/1"),
    ({"stage": ["a", "B"]}, "/stage/1"),
    ({"stage": "a", "journey": ""}, "/journey"),
    ({"stage": "a", "journey": ["b"]}, "/journey"),
    ({"stage": "a", "ever": True}, "/ever"),
    ({"stage": "a", "entered_within": "1d"}, "/entered_within"),
    ({"not": {"stage": "a", "for_at_least": "1d"}}, "/not/for_at_least"),
    # no JSON
    ({"did": b"A"}, "/did"),
    ({"did": "A", 1: 2}, "/1"),
    (where({1, 2}), "/where/p"),
]


@pytest.mark.parametrize(("rule", "path"), [(rule, path) for rule, path in REFUSED if path is not None])
def test_refused_with_path_and_remedy(rule: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_rule(rule, "/rule")
    assert caught.value.path == f"/rule{path}"
    assert caught.value.remedy
    msgspec.json.encode(caught.value.problem())


def test_the_table_is_long_enough() -> None:
    assert len(REFUSED) >= 150


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"sum": "total", "of": "A"}, "not available yet"),
        (did(during="today"), "during is not available yet"),
        (did(within="3mo"), "not available yet"),
        (trait(gt={"trait": "x"}), "not available yet"),
        (where({"matches": "x"}), "matches is not available yet"),
        ({"dids": "A"}, "Did you mean did?"),
        (did(evnt=1), "a did node has no key evnt"),
    ],
)
def test_says_what_is_wrong(rule: Any, says: str) -> None:
    with pytest.raises(InvalidDefinition, match="/rule") as caught:
        parse_rule(rule)
    assert says in str(caught.value)


def nested(levels: int, head: str) -> Any:
    rule: Any = {"did": "A"}
    for _ in range(levels):
        rule = {head: rule if head in ("not", "where", "did") else [rule]}
    return rule


@pytest.mark.parametrize("head", ["not", "all", "where"])
def test_a_million_levels_are_refused_cleanly(head: str) -> None:
    with pytest.raises(InvalidDefinition):
        parse_rule(nested(10**6, head))


def test_depth_and_size_have_exact_limits() -> None:
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
        ({**SEGMENT, "rule": {"all": [{"did": 1}]}}, "/rule/all/0/did"),
        ({**SEGMENT, "rule": {"all": [{"did": "A", "x": 1}]}}, "/rule/all/0/x"),
        ({**SEGMENT, "rule": None}, "/rule"),
    ],
)
def test_segments_are_refused_where_they_are_wrong(definition: Any, path: str) -> None:
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
def test_journeys_are_refused_where_they_are_wrong(definition: Any, path: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_journey(definition)
    assert caught.value.path == path


def test_names_may_be_left_out() -> None:
    assert parse_segment({"key": "a", "rule": DID}).name == "a"
    assert parse_journey({"key": "j", "stages": [{"key": "s", "rule": DID}]}).stages[0].name == "s"
