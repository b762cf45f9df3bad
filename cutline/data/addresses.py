"""Addresses on the web: what is one, how it is written for a request, and which machines it may lead to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

#: Where a sample keeps the address that the source gave, when another is tried first.
ORIGINAL = "original_address"

#: NAT64 (RFC 6052): the last 32 bits are an IPv4 address, which may be a private one.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

#: For the inside of protocols and clouds (RFC 6890), though Python 3.11 takes most of it for public.
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")


class BadAddress(ValueError):
    """A text that names nothing that could be fetched."""


def is_address(name: str) -> bool:
    """Whether an image's name is an http or https address rather than a file's."""
    return name[:8].lower().startswith(("http://", "https://"))


def normal(address: str) -> str:
    """The address as it goes into a request: spaces and other letters encoded, no fragment.

    Raises:
        BadAddress: no host, another scheme than http or https, or an impossible port.
    """
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname or "", parts.port
        if ":" not in host:
            host = host.encode("idna").decode() if not host.isascii() else host
    except (ValueError, UnicodeError) as error:
        raise BadAddress(f"{address[:200]!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise BadAddress(f"{address[:200]!r} is no http or https address")
    if any(char.isspace() or char < " " for char in host):
        raise BadAddress(f"{address[:200]!r}: its host has a space in it")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        netloc += f":{port}"
    if "@" in parts.netloc:
        netloc = f"{parts.netloc.rpartition('@')[0]}@{netloc}"
    try:
        path, query = _encoded(parts.path or "/", ""), _encoded(parts.query, "?[]|")
    except UnicodeError as error:
        raise BadAddress(f"{address[:200]!a} has broken letters in it") from error
    return urlunsplit(SplitResult(parts.scheme, netloc, path, query, ""))


def _encoded(text: str, more: str) -> str:
    """What is encoded already stays; a % that encodes nothing is encoded itself, and so are bytes that are no UTF-8."""
    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    return quote(text, safe="/%:@!$&'()*+,;=~-._" + more, errors="surrogateescape")


def joined(base: str, location: str) -> str:
    """Where a redirect leads.

    Raises:
        BadAddress: as ``normal``.
    """
    try:
        return normal(urljoin(base, location.strip()))
    except BadAddress:
        raise
    except ValueError as error:
        raise BadAddress(f"redirected to {location[:200]!r}, which is no address") from error


def host_of(address: str) -> str:
    """Host and port, in lower case: what counts as one server."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def is_public(ip: str) -> bool:
    """Whether an IP address belongs to the open internet rather than to a machine, a network or a cloud's inside.

    IPv4 addresses wrapped in IPv6 (mapped, 6to4, Teredo, NAT64) are judged by what they wrap.
    """
    try:
        found = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if found.teredo is not None:
            inner = found.teredo[1]
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    if found in _PROTOCOLS:
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved and not found.is_unspecified
