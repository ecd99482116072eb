"""The page for Prometheus, read back by Prometheus' own parser: complete, documented, bounded, for loopback only."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from cli.parts import RUNNING, SOLD, TENANT, USED
from cli.parts import node as node_at
from dockage.daemon import loading, metrics
from dockage.daemon.node import Node
from dockage.domain.errors import UsageError
from dockage.ports.peers import RelayFigures
from dockage.protocol.prometheus import Family, Sample, render

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/reference/metrics.md"


@pytest.fixture
async def node(home: Path) -> Node:
    return await node_at(home, provider={"enabled": True}, bitcoin={"network": "regtest"})


def read(node: Node) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Name: labels: value."""
    found: dict[str, Any] = {}
    for family in parse(render(metrics.families(node)).decode()):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "one sample twice"
            found[sample.name][labels] = sample.value
    return found


async def test_what_a_lease_used_and_costs_is_there_and_ended_ones_are_in_the_sums_only(node: Node) -> None:
    shown = read(node)
    by_lease = {dict(labels)["lease"]: v for labels, v in shown["dockage_lease_cpu_seconds_total"].items()}
    assert by_lease == {RUNNING.hex(): 90.0, SOLD.hex(): 90.0}
    sold = next(dict(x) for x in shown["dockage_lease_due_msat_total"] if ("side", "sold") in x)
    assert sold == {"side": "sold", "lease": SOLD.hex(), "deployment": "", "peer": TENANT.node.hex()}
    sent = {dict(x)["direction"]: v for x, v in shown["dockage_lease_network_bytes_total"].items()}
    assert sent == {
        "in": USED.net_in_bytes,
        "out": USED.net_out_bytes,
        "internet_out": 0,
        "replica_out": 0,
    }
    leases = node.tenant.state.leases.values()
    assert shown["dockage_due_msat_total"][("role", "paying"),] == sum(x.due for x in leases)
    assert shown["dockage_leases"][("side", "rented"), ("state", "ended")] == 1
    assert shown["dockage_paid_sat_total"] == {(("role", "paying"),): 1, (("role", "earning"),): 1}
    assert shown["dockage_provider_cpu_cores"][("of", "free"),] == 3.5


async def test_the_page_on_metrics_names_each_and_no_other(node: Node) -> None:
    node.reception.refused["frame.malformed"] = 3
    node = replace(node, relay=lambda: RelayFigures(1, 2, 3, 4.0, {"crowded": 5}))
    shown = read(node)
    listed = dict(re.findall(r"^\| `(dockage_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))
    assert listed.keys() == shown.keys()
    kinds = {family.name: family.kind for family in metrics.families(node)}
    assert listed == kinds
    labels = {name for samples in shown.values() for one in samples for name, _ in one}
    assert {name for name in labels if f"`{name}`" not in PAGE.read_text()} == set()


async def test_no_more_leases_than_the_bound_are_listed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LEASES_MAX", 1)
    shown = read(node)
    assert len(shown["dockage_lease_limit_cpu_cores"]) == 2
    assert len(shown["dockage_leases"]) == 2, "the running one comes first"


async def test_it_is_served_by_address_and_to_no_page_that_calls_itself_something_else(node: Node) -> None:
    with metrics.listen("127.0.0.1:0") as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(metrics.Metrics(node, listening).serve())
            async with aiohttp.ClientSession() as session:
                async with session.get(url) as answer:
                    assert (answer.status, answer.content_type) == (200, "text/plain")
                    assert b"dockage_info" in await answer.read()
                for host, status in (("localhost:1", 200), ("evil.example", 403)):
                    async with session.get(url, headers={"Host": host}) as answer:
                        assert answer.status == status
                busy = f"127.0.0.1:{listening.getsockname()[1]}"
                with pytest.raises(UsageError) as caught:
                    metrics.listen(busy)
                assert caught.value.code == "metrics.busy"
            serving.cancel()


@pytest.mark.parametrize("where", ["0.0.0.0:9464", "192.0.2.1:9464", "9464", "localhost:9464"])
def test_it_is_for_loopback_only(tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match="on loopback"):
        loading.load(tmp_path, {"node": {"metrics": where}})
    assert loading.load(tmp_path, {"node": {"metrics": "[::1]:9464"}}).node.metrics


@given(st.dictionaries(st.sampled_from("abc"), st.text()), st.integers() | st.floats(allow_nan=False))
def test_whatever_a_label_holds_is_read_back(labels: dict[str, str], value: float) -> None:
    """Also a deployment whose name is made to look like another sample."""
    shown = render(
        [Family("dockage_x", "gauge", "A\\b\nc.", (Sample(value, labels),)), Family("y", "gauge", "", ())]
    )
    [family] = parse(shown.decode())
    [sample] = family.samples
    assert (sample.name, sample.labels, float(sample.value)) == ("dockage_x", labels, float(value))
    assert family.documentation == "A\\b\nc."
