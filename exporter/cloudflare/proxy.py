"""The proxy for requests to the API, from the environment: HTTPS_PROXY, HTTP_PROXY and ALL_PROXY
name it, and NO_PROXY names the hosts that are reached without it."""

import re
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from exporter.config.urls import is_loopback


def proxy_for(url: str) -> str | None:
    """The URL of the proxy for requests to a URL. None: there is no proxy, or the host is reached
    without it, as loopback addresses always are.

    Raises:
        ValueError: the proxy's URL lacks a host, or has an invalid port.
    """
    target = urlsplit(url)
    host, port = target.hostname or "", target.port
    proxies = getproxies_environment()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    entries = re.split(r"[\s,]+", proxies.get("no", ""))
    if not proxy or is_loopback(url) or any(_covers(e, host, port) for e in entries if e):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(proxy)
    if not parts.hostname or parts.port == 0:
        raise ValueError("not the URL of a proxy")
    return proxy


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY covers a host.

    An entry is `*`, a domain with or without a leading dot or `*.`, an address, a network or
    `[::1]`, each with or without a port. Any other entry covers nothing.
    """
    name = entry.lower()
    match = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", name)
    if match:
        name = match[1]
        if port is not None and int(match[2]) != port:
            return False
    name = name.strip("[]")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").removeprefix(".")
        return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))
