"""Browsers, devices and bots by their user agents."""

from __future__ import annotations

import crawleruseragents
import pytest

from app.enrichment.user_agents import USER_AGENT_CHARS_MAX, UserAgentClient, client_of, is_bot, speaks_for_visitor

_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
_IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
_ANDROID = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "

PEOPLE = [
    (_WINDOWS + "Chrome/140.0.0.0 Safari/537.36", UserAgentClient("desktop", "Chrome", "140", "Windows", "10")),
    (
        _WINDOWS + "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
        UserAgentClient("desktop", "Edge", "140", "Windows", "10"),
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Safari/605.1.15",
        UserAgentClient("desktop", "Safari", "18.1", "Mac OS X", "10.15"),
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
        UserAgentClient("desktop", "Firefox", "130", "Linux"),
    ),
    (
        _WINDOWS.replace("Windows NT 10.0; Win64; x64", "X11; CrOS x86_64 14541.0.0")
        + "Chrome/140.0.0.0 Safari/537.36",
        UserAgentClient("desktop", "Chrome", "140", "Chrome OS", "14541"),
    ),
    (
        _IPHONE + "Version/17.5 Mobile/15E148 Safari/604.1",
        UserAgentClient("mobile", "Mobile Safari", "17.5", "iOS", "17.5"),
    ),
    (
        _ANDROID + "Chrome/140.0.0.0 Mobile Safari/537.36",
        UserAgentClient("mobile", "Chrome Mobile", "140", "Android", "14"),
    ),
    (
        "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
        "Mobile/15E148 Safari/604.1",
        UserAgentClient("tablet", "Mobile Safari", "17.5", "iOS", "17.5"),
    ),
    (
        _ANDROID.replace("14; Pixel 8", "13; SM-X700") + "Chrome/140.0.0.0 Safari/537.36",
        UserAgentClient("tablet", "Chrome", "140", "Android", "13"),
    ),
    (
        "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/94.0.4606.128 Safari/537.36 "
        "WebAppManager",
        UserAgentClient("tv", "Chrome", "94", "Web0S"),
    ),
    ("Mozilla/5.0", UserAgentClient("unknown")),
    ("", UserAgentClient("unknown")),
]

IN_APPS = [
    _IPHONE + "Mobile/21F90 [FBAN/FBIOS;FBAV/467.0.0.42.108;FBDV/iPhone14,3;FBMD/iPhone;FBSN/iOS;FBSV/17.5.1]",
    _IPHONE + "Mobile/15E148 Instagram 334.0.4.32.98 (iPhone14,5; iOS 17_5; de_DE; de; scale=3.00; 1170x2532)",
    _IPHONE + "GSA/319.0.636526146 Mobile/15E148 Safari/604.1",
    _IPHONE + "Mobile/15E148 Snapchat/12.90.0.41",
    _IPHONE + "Mobile/15E148 LinkedInApp/9.30",
    _ANDROID + "Version/4.0 Chrome/125.0 Mobile Safari/537.36 [Pinterest/Android]",
    _ANDROID + "Chrome/125 Mobile Safari/537.36 trill_2023405040 BytedanceWebview/d8a21c6 musical_ly",
    _ANDROID + "Version/4.0 Chrome/125.0 Mobile Safari/537.36 Line/14.9.0/IAB",
    _ANDROID.replace("Pixel 8", "CUBOT X30") + "Chrome/125.0 Mobile Safari/537.36",
]

BOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0.0.0 Safari/537.36",
    "curl/8.5.0",
    "python-requests/2.32",
]


@pytest.mark.parametrize(("user_agent", "client"), PEOPLE)
def test_client_of_user_agent(user_agent: str, client: UserAgentClient) -> None:
    assert client_of(user_agent) == client
    assert not is_bot(user_agent)


@pytest.mark.parametrize("user_agent", IN_APPS)
def test_in_app_browsers_are_not_bots(user_agent: str) -> None:
    assert not is_bot(user_agent)
    assert client_of(user_agent).device == "mobile"


@pytest.mark.parametrize("user_agent", BOTS)
def test_bot_user_agents(user_agent: str) -> None:
    assert is_bot(user_agent)
    assert client_of(user_agent).device == "bot"


def test_bot_automaton_matches_the_single_patterns() -> None:
    """The automaton and the list's patterns agree on all examples of the list and all user agents above."""
    examples = [example for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA for example in crawler["instances"]]
    people = [user_agent for user_agent, _ in PEOPLE]
    assert len(examples) > 2_000
    for user_agent in (*examples, *people, *IN_APPS, *BOTS):
        cut = user_agent[:USER_AGENT_CHARS_MAX]
        assert is_bot(user_agent) is crawleruseragents.is_crawler(cut), user_agent


def test_only_browsers_and_crawlers_speak_for_a_visitor() -> None:
    assert all(speaks_for_visitor(user_agent) for user_agent in (*IN_APPS, *BOTS[:5]))
    assert not any(speaks_for_visitor(user_agent) for user_agent in (*BOTS[5:], "node", "okhttp/4.12.0", "", None))


def test_long_and_malformed_user_agents() -> None:
    assert client_of("Mozilla/5.0 " * 10_000 + "Googlebot/") == UserAgentClient("unknown")
    assert client_of("\0\ud800\n") == UserAgentClient("unknown")
