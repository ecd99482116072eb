"""A gateway: a ``ContainerHost`` whose leases hold no containers but names and ports, and a relay behind them.

``host.py`` is what the provider's mind sees, ``served.py`` what is served now, ``live.py`` one deployment of it,
``upstream.py`` the way to a replica, ``web.py`` HTTP, ``raw.py`` TLS passed on, TCP and UDP, ``listeners.py`` where the
public comes in, ``health.py`` the checks, ``face.py`` Caddy.
"""
