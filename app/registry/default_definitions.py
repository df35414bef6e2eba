"""Default journeys, segments and computed traits of a new workspace, in the JSON form of the API.

Event names are those of Segment's e-commerce and email specs, a few for support, reviews and referrals, and those that
connectors produce. The rules do not depend on the order in which events arrive.
"""

from __future__ import annotations

from typing import Any, Final

Definition = dict[str, Any]

OWNER: Final = "segue"

_ANYTHING: Final = {"did": "*"}
_BOUGHT: Final = {"did": "Order Completed"}
_BOUGHT_AGAIN: Final = {"did": "Order Completed", "at_least": 2}

_NO_MACHINE: Final = {"machine": {"ne": True}}
"""Filter that excludes opens and clicks of programs such as mail scanners."""

_BROWSED: Final = {
    "any": [
        {"did": "email.clicked", "where": _NO_MACHINE},
        {
            "did": [
                "Product Viewed",
                "Product Clicked",
                "Product List Viewed",
                "Product List Filtered",
                "Products Searched",
                "Promotion Clicked",
                "Offer Viewed",
                "Article Read",
                "Review Read",
                "Email Link Clicked",
            ]
        },
        {
            "did": ["page_viewed", "screen_viewed"],
            "where": {
                "category": {
                    "in": ["article", "blog", "docs", "guide", "product", "products", "review", "reviews"],
                    "ignore_case": True,
                }
            },
        },
        {"did": ["page_viewed", "screen_viewed"], "at_least": 2},
    ]
}

_DECIDED: Final = {
    "did": [
        "Product Added",
        "Product Added to Wishlist",
        "Wishlist Product Added to Cart",
        "Cart Viewed",
        "Coupon Entered",
        "Coupon Applied",
        "Offer Accepted",
        "Checkout Started",
        "Checkout Step Viewed",
        "Checkout Step Completed",
        "Payment Info Entered",
    ]
}

_MAIL: Final = ["Email Delivered", "Email Opened", "Email Link Clicked", "email.delivered"]


def _build_mail_rules(word: str) -> list[Definition]:
    """Return rules that match mails whose subject or campaign contains ``word``, one for each property name."""
    return [
        {"did": _MAIL, "where": {name: {"contains": word, "ignore_case": True}}}
        for name in ("email_subject", "campaign_name", "campaign")
    ]


_CARED_FOR: Final = {
    "any": [
        {
            "did": [
                "Order Shipped",
                "Order Fulfilled",
                "Order Delivered",
                "Order Updated",
                "Order Refunded",
                "Product Reviewed",
                "Support Ticket Created",
                "Support Ticket Solved",
                "Support Contacted",
                "Chat Started",
                "Survey Answered",
                "ticket.created",
                "ticket.solved",
                "chat.started",
                "csat.submitted",
                "survey.completed",
            ]
        },
        *_build_mail_rules("thank"),
        *_build_mail_rules("tips"),
        *_build_mail_rules("post-purchase"),
    ]
}
"""Events after a purchase."""

_RECOMMENDED: Final = {"did": ["Referral Sent", "Referral Completed", "Testimonial Given"]}


def _build_stage(key: str, name: str, rule: Definition) -> Definition:
    return {"key": key, "name": name, "rule": rule}


JOURNEYS: Final[tuple[Definition, ...]] = (
    {
        "key": "six-stage",
        "name": "Six stages",
        "description": "From the first contact to a customer who comes back.",
        "owner": OWNER,
        "stages": [
            _build_stage("awareness", "Awareness", _ANYTHING),
            _build_stage("consideration", "Consideration", _BROWSED),
            _build_stage("decision", "Decision", _DECIDED),
            _build_stage("purchase", "Purchase", _BOUGHT),
            _build_stage("post-purchase", "Post-purchase", {"all": [_BOUGHT, _CARED_FOR]}),
            _build_stage(
                "loyalty",
                "Loyalty",
                {
                    "any": [
                        _BOUGHT_AGAIN,
                        {"all": [_BOUGHT, {"any": [_RECOMMENDED, {"did": "Loyalty Program Joined"}]}]},
                    ]
                },
            ),
        ],
    },
    {
        "key": "five-stage",
        "name": "Five stages",
        "description": "A shorter journey; its last stage is customers who recommend you.",
        "owner": OWNER,
        "stages": [
            _build_stage("awareness", "Awareness", _ANYTHING),
            _build_stage("consideration", "Consideration", {"any": [_BROWSED, _DECIDED]}),
            _build_stage("purchase", "Purchase", _BOUGHT),
            _build_stage("retention", "Retention", {"any": [_BOUGHT_AGAIN, {"all": [_BOUGHT, _CARED_FOR]}]}),
            _build_stage(
                "advocacy",
                "Advocacy",
                {
                    "all": [
                        _BOUGHT,
                        {
                            "any": [
                                _RECOMMENDED,
                                {"did": "Product Shared"},
                                {"did": "Product Reviewed", "where": {"rating": {"gte": 4}}},
                            ]
                        },
                    ]
                },
            ),
        ],
    },
    {
        "key": "content-4",
        "name": "Content marketing",
        "description": "For offers that are explained before they are sold.",
        "owner": OWNER,
        "stages": [
            _build_stage("awareness", "Awareness", _ANYTHING),
            _build_stage(
                "consideration",
                "Consideration",
                {"any": [_BROWSED, {"did": ["Content Downloaded", "Webinar Registered", "Newsletter Subscribed"]}]},
            ),
            _build_stage(
                "decision",
                "Decision",
                {
                    "any": [
                        _DECIDED,
                        {"did": ["Demo Requested", "Trial Started", "Quote Requested"]},
                        {
                            "did": ["page_viewed", "screen_viewed"],
                            "where": {"category": {"eq": "pricing", "ignore_case": True}},
                        },
                    ]
                },
            ),
            _build_stage("retention", "Retention", {"did": ["Order Completed", "Subscription Started"]}),
        ],
    },
)


def _build_segment(key: str, name: str, description: str, rule: Definition) -> Definition:
    return {"key": key, "name": name, "description": description, "owner": OWNER, "rule": rule}


_CART: Final = ["Product Added", "Checkout Started"]

SEGMENTS: Final[tuple[Definition, ...]] = (
    _build_segment(
        "new-visitors",
        "New visitors",
        "First seen less than 7 days ago.",
        {"all": [{"did": "*", "within": "7d"}, {"not": {"did": "*", "before": "7d"}}]},
    ),
    _build_segment(
        "engaged",
        "Engaged",
        "At least five activities in the last 30 days, without opens and clicks caused by machines.",
        {
            "did": [
                "page_viewed",
                "screen_viewed",
                "Product Viewed",
                "Product Added",
                "Products Searched",
                "Article Read",
                "Review Read",
                "Email Link Clicked",
                "Order Completed",
                "Product Reviewed",
                "Product Shared",
                "email.clicked",
            ],
            "where": _NO_MACHINE,
            "at_least": 5,
            "within": "30d",
        },
    ),
    _build_segment(
        "cart-abandoners",
        "Cart abandoners",
        "Filled a cart in the last 7 days, left it for an hour, and did not order in these days.",
        {
            "all": [
                {"did": _CART, "within": "7d"},
                {"not": {"did": _CART, "within": "1h"}},
                {"not": {"did": "Order Completed", "within": "7d"}},
            ]
        },
    ),
    _build_segment(
        "first-time-buyers",
        "First-time buyers",
        "Ordered exactly once.",
        {"did": "Order Completed", "exactly": 1},
    ),
    _build_segment("repeat-buyers", "Repeat buyers", "Ordered at least twice.", _BOUGHT_AGAIN),
    _build_segment(
        "at-risk",
        "At risk",
        "Ordered once or more, but not in the last 90 days.",
        {"all": [_BOUGHT, {"not": {"did": "Order Completed", "within": "90d"}}]},
    ),
    _build_segment(
        "email-engaged",
        "Email-engaged",
        "Opened or clicked at least two mails in the last 30 days, and never unsubscribed.",
        {
            "all": [
                {
                    "did": ["Email Opened", "Email Link Clicked", "email.opened", "email.clicked"],
                    "where": _NO_MACHINE,
                    "at_least": 2,
                    "within": "30d",
                },
                {"not": {"did": ["Unsubscribed", "Email Marked as Spam", "email.unsubscribed", "email.complained"]}},
            ]
        },
    ),
    _build_segment(
        "unhappy",
        "Unhappy",
        "In the last 90 days a rating of 2 or less (for CSAT, only the latest one counts), or three tickets "
        "within 30 days.",
        {
            "any": [
                {
                    "did": ["Support Rated", "Support Ticket Solved", "Survey Answered", "Product Reviewed"],
                    "where": {"rating": {"lte": 2}},
                    "within": "90d",
                },
                {"last_value": "rating", "of": "csat.submitted", "within": "90d", "lte": 2},
                {
                    "did": ["Support Rated", "Support Ticket Solved"],
                    "where": {"satisfaction": {"in": ["bad", "dissatisfied", "negative"], "ignore_case": True}},
                    "within": "90d",
                },
                {"did": ["Support Ticket Created", "ticket.created"], "at_least": 3, "within": "30d"},
            ]
        },
    ),
)

_GROUP: Final = "context.acquisition.group"


def _build_trait(key: str, name: str, description: str, value: Definition) -> Definition:
    return {"key": key, "name": name, "description": description, "owner": OWNER, "value": value}


TRAITS: Final[tuple[Definition, ...]] = (
    _build_trait(
        "first_touch",
        "First touch",
        "The channel group of the first visit, including Direct.",
        {"first_value": _GROUP, "of": "page_viewed", "where": {_GROUP: {"exists": True}}},
    ),
    _build_trait(
        "last_touch",
        "Last touch",
        "The channel group of the latest visit that was not direct.",
        {"last_value": _GROUP, "of": "page_viewed", "where": {_GROUP: {"exists": True, "ne": "Direct"}}},
    ),
)
"""Only two traits, because each costs 1 us per page view and 5 us per arrival. Users can add others."""
