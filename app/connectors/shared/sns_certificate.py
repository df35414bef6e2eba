"""Signing certificates of Amazon SNS: their URL, names, validity and chain. Pure.

The document at ``SigningCertURL`` is usually the certificate alone, so its chain cannot be verified. The TLS connection
to a host that only SNS can have then authenticates it. ``docs/decisions/sns-certificates.md`` gives the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import urlsplit
from warnings import catch_warnings, simplefilter

import certifi
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    SubjectAlternativeName,
    load_pem_x509_certificate,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from app.connectors.signatures import WRONG, SignatureRefused
from app.touchpoint import SECOND

_REGION: Final = r"[a-z]{2}(?:-[a-z]{3,12}){1,3}-[0-9]{1,2}"
"""A region such as eu-west-1. It does not match s3-eu-west-1: at this old host of S3, ``sns`` is a bucket."""
_HOST: Final = re.compile(rf"sns\.{_REGION}\.amazonaws\.com(?:\.cn)?")
_URL: Final = re.compile(rf"https://{_HOST.pattern}/SimpleNotificationService-[0-9a-zA-Z]{{1,64}}\.pem")
_NAME: Final = re.compile(rf"sns\.(?:{_REGION}\.)?amazonaws\.com(?:\.cn)?")
_PEM: Final = b"-----BEGIN CERTIFICATE-----"


def is_certificate_url(url: Any) -> bool:
    return isinstance(url, str) and _URL.fullmatch(url) is not None


def is_sns_url(url: Any) -> bool:
    """Return whether the URL leads to SNS over HTTPS, at the usual port and without credentials."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme == "https"
        and parts.username is None
        and port in (None, 443)
        and _HOST.fullmatch(parts.hostname or "") is not None
    )


def find_valid_public_key(pem: bytes, at: int) -> RSAPublicKey:
    """Return the key of a certificate of SNS.

    Raise SignatureRefused if the document is not one, or if it is not valid ``at`` this time in microseconds.
    """
    certificate, issuers, key = _load(pem)
    instant = datetime.fromtimestamp(at / SECOND, UTC)
    if not certificate.not_valid_before_utc <= instant <= certificate.not_valid_after_utc:
        raise SignatureRefused(WRONG, "the certificate at `SigningCertURL` is expired or not yet valid")
    names = [name for name in _list_names(certificate) if _NAME.fullmatch(name)]
    if not names:
        raise SignatureRefused(WRONG, "the certificate at `SigningCertURL` is not a certificate of SNS")
    if issuers:
        _verify_chain(certificate, issuers, names[0], instant)
    return key


@lru_cache(maxsize=64)
def _load(pem: bytes) -> tuple[Certificate, Sequence[Certificate], RSAPublicKey]:
    """Return the certificate, the issuers that follow it in the document, and its key."""
    if not pem.startswith(_PEM):
        raise SignatureRefused(WRONG, "the content at `SigningCertURL` is not a certificate")
    try:
        certificate, *issuers = load_pem_x509_certificates(pem)
        key = certificate.public_key()
    except ValueError:
        raise SignatureRefused(WRONG, "the content at `SigningCertURL` is not a certificate") from None
    if not isinstance(key, RSAPublicKey):
        raise SignatureRefused(WRONG, "the certificate at `SigningCertURL` does not have an RSA key")
    return certificate, issuers, key


def _list_names(certificate: Certificate) -> list[str]:
    """Return the host names of a certificate: the alternative names, or else the common name."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
    except (ExtensionNotFound, ValueError):
        return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return alternatives.value.get_values_for_type(DNSName)


def _verify_chain(certificate: Certificate, issuers: Sequence[Certificate], name: str, instant: datetime) -> None:
    verifier = PolicyBuilder().store(_load_roots()).time(instant).build_server_verifier(DNSName(name))
    try:
        verifier.verify(certificate, list(issuers))
    except VerificationError:
        raise SignatureRefused(WRONG, "the chain of the certificate at `SigningCertURL` has no trusted root") from None


@cache
def _load_roots() -> Store:
    """Return the public roots, which include those of Amazon and Starfield."""
    documents = certifi.contents().encode().split(_PEM)[1:]
    roots: list[Certificate] = []
    with catch_warnings():
        # A few old roots have a serial number of 0, which the library warns of and will refuse one day.
        simplefilter("ignore", CryptographyDeprecationWarning)
        for document in documents:
            with suppress(ValueError):
                roots.append(load_pem_x509_certificate(_PEM + document))
    return Store(roots)
