"""Where requests come from, past the proxies that stand for others."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

# What hosting companies have in front: `TRUSTED_PROXIES=private,cloudflare` is right on Render.
# Cloudflare publishes its ranges at https://www.cloudflare.com/ips/.
NAMED_PROXIES = {
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7",
    "loopback": "127.0.0.0/8 ::1",
    "cloudflare": "173.245.48.0/20 103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 141.101.64.0/18 "
    "108.162.192.0/18 190.93.240.0/20 188.114.96.0/20 197.234.240.0/22 198.41.128.0/17 "
    "162.158.0.0/15 104.16.0.0/13 104.24.0.0/14 172.64.0.0/13 131.0.72.0/22 2400:cb00::/32 "
    "2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29 2c0f:f248::/32",
}


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses, networks and NAMED_PROXIES; raises ValueError for anything else."""
    texts = [text for name in names for text in NAMED_PROXIES.get(name, name).split()]
    return tuple(ip_network(text) for text in texts)


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> str:
    """Return the last address that no proxy of ours stands for.

    Each proxy adds the address that it sees at the right: what is further left than the first
    stranger, anybody could have written. `forwarded_for` are the header's lines.
    """
    address = _parse(peer or "")
    hops = ",".join(forwarded_for).split(",") if trusted else []
    for hop in reversed(hops):
        if address is None or not any(address in network for network in trusted):
            break
        if (before := _parse(hop)) is None:
            break
        address = before
    return str(address) if address else "unknown"


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Take a port and brackets off: `[::1]:80`, `192.0.2.1:80`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def group_of(address: str) -> str:
    """An IPv6 network has addresses without end, and is one client: the first 64 bits count."""
    if ":" not in address:
        return address
    return str(ip_network((int(ip_address(address)) >> 64 << 64, 64)))
