"""What people and programs are shown of a node: plain JSON values, with units in the names.

These shapes are the ``--json`` of the CLI and the control API's answers (docs/reference/control-api.md); keys are
only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dockage.domain.advice import Change
from dockage.domain.channel import Channel
from dockage.domain.history import NO_LINE, Spent
from dockage.domain.identity import NodeKey
from dockage.domain.lease import METERED, Ending, LeaseState
from dockage.domain.offer import Wish, hourly_ceiling, obstacles
from dockage.domain.pricing import FIELDS, PRESETS, Tariff, ceiling, parts, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import HOUR, MILLISECOND, SECOND, Duration, Instant, since
from dockage.domain.usage import Usage
from dockage.node.evidence import Known
from dockage.node.provider import Provider, SoldLease
from dockage.node.tenant import RentedLease, Tenant
from dockage.protocol.bitcoin.settlement import overhead

from .entrance import Entrance
from .machines import Machine
from .market import Found
from .own import Seen
from .paidrelay import PaidRelay

Json = dict[str, Any]


def resources(of: Resources) -> Json:
    return {name: getattr(of, name) for name in of.__struct_fields__}


def usage(of: Usage) -> Json:
    return {field: getattr(of, field) for field in of.__struct_fields__}


def tariff(of: Tariff) -> Json:
    return {f"{field}_msat": getattr(of, field) for field in of.__struct_fields__}


def reason(of: Reason | None) -> Json | None:
    return {"code": of.code, "text": of.text} if of else None


def ending(of: Ending | None, now: Instant) -> Json | None:
    """The end that a provider announced, on its clock."""
    if of is None:
        return None
    left = max(0, since(now, of.at) // SECOND)
    return {"at_sec": of.at // SECOND, "in_sec": left, **(reason(of.reason) or {})}


def cost_lines(used: Usage, by: Tariff) -> Json:
    """msat per resource; the sum is ``due_msat``."""
    return {f"{name}_msat": value for name, value in parts(used, by).items()}


def offer(found: Found, wish: Wish, now: Instant, seen: Known) -> Json:
    """With the price of *this* deployment, and what stands in its way ([] if it fits)."""
    of = found.offer
    return {
        "provider": of.provider.hex(),
        "region": of.region,
        "architecture": of.architecture,
        "opacity": of.opacity,
        "isolation": of.isolation,
        "network": of.network,
        "free": resources(of.free),
        "tariff": tariff(of.tariff),
        "msat_hour_max": hourly_ceiling(of, wish.limits),
        "obstacles": list(obstacles(of, wish, seen.risk)),
        "risk_permille": seen.risk(of.provider),
        "evidence": evidence(seen, of.provider),
        "age_sec": since(found.seen, now) // SECOND,
        "until_sec": of.until // SECOND,
    }


def change(of: Change) -> Json:
    """A single change of what was asked for, after which something fits."""
    return {
        "what": of.what,
        "text": of.text,
        "effort_permille": of.effort_permille,
        "offers": of.offers,
        "provider": of.provider.hex(),
        "msat_hour_max": of.msat_hour,
    }


def offer_order(of: Json) -> tuple[bool, int, str]:
    """As placement ranks them: what fits first, then by price times (1 + risk)."""
    return bool(of["obstacles"]), of["msat_hour_max"] * (1000 + of["risk_permille"]), of["provider"]


def entrance(of: Entrance) -> Json:
    """How the market was found."""
    return {"nodes": of.nodes, "found_by": of.found_by, "asked": dict(of.asked), "why": of.why()}


def machine(of: Machine, seen: Seen, now: Instant) -> Json:
    """One of our user's own."""
    return {
        "node": of.key.hex(),
        "name": of.name,
        "addresses": list(of.direct),
        "relay": of.relay,
        "linked_sec": since(of.since, now) // SECOND,
        "answered_sec": since(seen.at, now) // SECOND if seen.at else None,
        "linked_there": seen.linked,
        "sells": seen.sells,
    }


def evidence(seen: Known, provider: NodeKey) -> Json:
    """What this node itself has seen of *provider*."""
    of = seen.of(provider)
    return {
        "statements_agreed": of.ticks,
        "due_msat": of.due_msat,
        "channels_settled": of.settled,
        "settled_sat": of.settled_sat,
        "speed": of.score,
        "breaches": [{"at_ns": x.at, **(reason(x.reason) or {})} for x in of.breaches],
    }


def paid_relay(paid: PaidRelay | None, now: Instant) -> Json | None:
    """Of a node that is reached by relays."""
    if paid is None:
        return None
    sent, received = paid.bytes
    return {
        "lease": paid.state.lease.hex() if paid.state.lease else "",
        "url": paid.url,
        "sent_bytes": sent,
        "received_bytes": received,
        "budget_sat": paid.state.budget_sat,
        "spent_msat": paid.state.spent_on(now),
        "trouble": reason(paid.trouble),
    }


def _until(lease: RentedLease | SoldLease, now: Instant) -> Instant:
    return lease.since if lease.is_over else now


def rented(lease: RentedLease, now: Instant) -> Json:
    last = lease.last
    used = last.usage if last else Usage()
    return {
        "lease": lease.id.hex(),
        "deployment": lease.deployment,
        "service": lease.service,
        "provider": lease.provider.hex() if lease.candidates else "",
        "state": lease.state.value,
        "reason": reason(lease.reason),
        "dispute": reason(lease.dispute),
        "warning": reason(lease.warning),
        "ending": ending(lease.announced, now),
        "checks": {
            "looks": lease.checks.looks,
            "unchecked": lease.checks.unchecked,
            "speed": lease.checks.score,
            "touch_ns": lease.checks.touch_ns,
            "cost_ns": lease.checks.cost_ns,
        },
        "breaches": [reason(x.reason) for x in lease.breaches],
        "refusals": [{"provider": p.hex(), **(reason(r) or {})} for p, r in lease.refusals],
        "limits": resources(lease.limits),
        "tariff": tariff(lease.tariff),
        "running_sec": since(lease.opened_at, _until(lease, now)) // SECOND if lease.opened_at else 0,
        "ticks": last.seq if last else 0,
        "stated_at_ms": (last.at if last else 0) // MILLISECOND,
        "usage": usage(used),
        "memory_bytes": last.memory_bytes if last else 0,
        "disk_bytes": last.disk_bytes if last else 0,
        "containers": last.containers if last else 0,
        "due_msat": lease.due,
        "lines": cost_lines(used, lease.tariff),
        "due_at_fair_msat": price(used, PRESETS["fair"]),
        "msat_hour_max": ceiling(lease.limits, lease.tariff, HOUR),
        "silent_sec": since(lease.heard_at, now) // SECOND
        if lease.heard_at and lease.state in METERED
        else 0,
    }


def sold(lease: SoldLease, now: Instant) -> Json:
    last = lease.meter.last
    return {
        "lease": lease.id.hex(),
        "tenant": lease.tenant.hex(),
        "state": lease.state.value,
        "reason": reason(lease.reason),
        "ending": ending(None if lease.is_leaving else lease.ending, now),
        "limits": resources(lease.limits),
        "tariff": tariff(lease.tariff),
        "running_sec": since(lease.opened_at, _until(lease, now)) // SECOND,
        "ticks": lease.seq,
        "stated_at_ms": lease.stated_at // MILLISECOND,
        "usage": usage(lease.meter.usage),
        "memory_bytes": last.memory_bytes if last else 0,
        "disk_bytes": last.disk_bytes if last else 0,
        "containers": last.containers if last else 0,
        "due_msat": lease.due,
        "lines": cost_lines(lease.meter.usage, lease.tariff),
        "msat_hour_max": ceiling(lease.limits, lease.tariff, HOUR),
    }


def channel(of: Channel, role: str, height: int, feerate: int) -> Json:
    fees = overhead(feerate, of.terms.setup_sat)
    spent_fee = of.spending[-1].share if of.spending else 0
    closing = of.settled_txid or (of.spending[-1].txid if of.spending else of.agreed_txid)
    whole = (of.funding_fee or fees.open) + (spent_fee or fees.close)
    return {
        "channel": of.id.hex(),
        "role": role,
        "peer": of.peer.hex(),
        "state": of.state.value,
        "reason": reason(of.reason),
        "capacity_sat": of.terms.capacity,
        "paid_sat": of.paid,
        "remaining_sat": of.remaining,
        "confirmations": of.confirmations,
        "confirmations_needed": of.needed,
        "expiry_height": of.terms.expiry_height,
        "expiry_blocks": of.terms.expiry_height - height,
        "funding_txid": of.txid,
        "funding_fee_sat": of.funding_fee,
        "closing_txid": closing,
        "signed_by_both": bool(closing) and closing == of.agreed_txid,
        "closing_fee_sat": spent_fee,
        "settled": bool(of.settled_txid),
        "overhead_sat_now": fees.total,
        "overhead_sat": whole,
        "overhead_percent": round(100 * whole / of.terms.capacity, 2),
    }


def spend(state: Tenant, now: Instant) -> Json:
    """What runs, what it costs, what is paid."""
    leases = list(state.leases.values())
    live = [x for x in leases if x.state in METERED]
    return {
        "leases": [rented(x, now) for x in leases],
        "running": len(live),
        "msat_hour_max": sum(ceiling(x.limits, x.tariff, HOUR) for x in live),
        "due_msat": sum(x.due for x in leases),
        "paid_sat": sum(c.paid for c in state.channels.values()),
    }


def earnings(state: Provider, now: Instant) -> Json:
    leases = list(state.leases.values())
    settled = [c for c in state.channels.values() if c.settled_txid and not c.is_given_back]
    closes = {tx.txid: tx for c in settled for tx in c.spending if tx.txid == c.settled_txid}
    return {
        "leases": [sold(x, now) for x in leases],
        "running": sum(1 for x in leases if x.state in METERED),
        "ended": sum(1 for x in leases if x.state is LeaseState.ENDED),
        "due_msat": sum(x.due for x in leases),
        "paid_sat": sum(c.paid for c in state.channels.values()),
        "settled_sat": sum(c.paid for c in settled),
        "fees_sat": sum(tx.fee for tx in closes.values()),
    }


def history(spans: Sequence[Spent], step: Duration) -> Json:
    """The due of all rows together is what the statements of that time came to, to the msat."""
    return {
        "step_sec": step // SECOND,
        "fields": {"usage": [*FIELDS.values()], "lines": [f"{name}_msat" for name in FIELDS]},
        "rows": [_span(x) for x in spans],
        "due_msat": sum(x.due for x in spans),
    }


def _span(of: Spent) -> Json:
    lines = {name: of.lines.get(name, NO_LINE) for name in FIELDS}
    return {
        "start_sec": of.start // SECOND,
        "lease": of.lease.hex(),
        "deployment": of.deployment,
        "peer": of.peer.hex(),
        "usage": {field: lines[name].used for name, field in FIELDS.items()},
        "lines": {f"{name}_msat": line.cost for name, line in lines.items()},
        "due_msat": of.due,
    }


def dump(value: Any) -> bytes:
    return msgspec.json.encode(value)
