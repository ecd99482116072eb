"""The stock docker CLI, one container at a time; what both its generations do: ``test_generations.py``."""

from __future__ import annotations

import asyncio
import json

from frontlab import LIMITS, SITE, Tenant, until
from hostlab import IMAGE, Lab


async def test_run_shows_the_output_and_keeps_the_exit_code(tenant: Tenant) -> None:
    result = await tenant.tried("run", "--rm", *LIMITS, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out", "err")


async def test_run_reads_piped_stdin_to_its_end(tenant: Tenant) -> None:
    assert (
        await tenant.docker("run", "-i", "--rm", *LIMITS, IMAGE, "wc", "-c", stdin=b"x" * 300_000) == "300000"
    )


async def test_after_rm_nothing_is_left_and_the_lease_is_given_back(tenant: Tenant) -> None:
    await tenant.docker("run", "--rm", *LIMITS, IMAGE, "true")
    assert await tenant.docker("ps", "-aq") == ""
    await until(lambda: len(tenant.leases.released) == 1)


async def test_ps_shows_what_the_user_said_and_where_it_runs(tenant: Tenant) -> None:
    id_ = await tenant.run("--name", "web", "--label", "a=b", IMAGE, "sleep", "60")
    line = json.loads(await tenant.docker("ps", "--no-trunc", "--format", "{{json .}}"))
    assert (line["ID"], line["Names"], line["Image"], line["State"]) == (id_, "web", IMAGE, "running")
    [info] = tenant.leases.all()
    told = {f"dockage.provider={info.provider.hex()}", "dockage.price-msat-hour=1234"}
    assert told <= set(line["Labels"].split(","))
    found = await tenant.inspect("web")
    labels = found["Config"]["Labels"]
    assert labels["a"] == "b"
    assert labels["dockage.lease"] == info.id.hex()
    assert labels["dockage.provider"] == info.provider.hex()
    assert labels["dockage.price-msat-hour"] == "1234"
    assert (found["Name"], found["Config"]["Image"]) == ("/web", IMAGE)


async def test_ps_filters_in_the_cli_form(tenant: Tenant) -> None:
    one = await tenant.run("--name", "one", "--label", "kind=red", IMAGE, "sleep", "60")
    two = await tenant.docker("create", *LIMITS, "--name", "two", "--label", "kind=blue", IMAGE, "true")

    async def ids(*filters: str) -> set[str]:
        words = [word for one in filters for word in ("--filter", one)]
        return set((await tenant.docker("ps", "-aq", "--no-trunc", *words)).split())

    assert await ids("label=kind=red") == {one}
    assert await ids("label=kind") == {one, two}
    assert await ids("name=^/?tw") == {two}
    assert await ids("status=running") == {one}
    assert await ids("status=created") == {two}
    assert await ids(f"id={two[:12]}") == {two}
    assert await ids("network=bridge") == {one, two}
    assert await ids(f"ancestor={IMAGE}") == {one, two}
    assert await ids("label=kind=red", "status=created") == set()
    assert (await ids("before=two"), await ids("since=one")) == ({one}, {two})
    assert (await tenant.docker("ps", "-q", "--no-trunc")).split() == [one]
    assert (await tenant.docker("ps", "-n1", "-q", "--no-trunc")).split() == [two]


async def test_logs_follow_to_the_end(tenant: Tenant) -> None:
    await tenant.run("--name", "talk", IMAGE, "sh", "-c", "echo one; sleep 0.5; echo two; echo bad >&2")
    result = await tenant.tried("logs", "-f", "talk")
    assert (result.out.split(), result.err) == (["one", "two"], "bad")


async def test_a_killed_client_ends_its_attachment(tenant: Tenant) -> None:
    process = await tenant.process("run", "-i", "--rm", "--name", "quiet", *LIMITS, IMAGE, "sleep", "60")

    async def runs() -> bool:
        return await tenant.docker("ps", "-q", "--filter", "name=quiet") != ""

    await until(runs)
    process.kill()
    await process.communicate()
    await tenant.docker("rm", "-f", "quiet")


async def test_events_of_all_leases_come_together(tenant: Tenant) -> None:
    shown = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"
    process = await tenant.process("events", "--since", "1", "--format", shown)
    await tenant.docker("run", "--rm", "--name", "one", *LIMITS, IMAGE, "true")
    await tenant.docker("run", "--rm", "--name", "two", *LIMITS, IMAGE, "true")
    await tenant.docker("network", "create", "net")
    for kind in ("container", "network", "volume"):
        await tenant.docker(kind, "prune", "--force")
    assert process.stdout
    seen: set[str] = set()
    wanted = {
        "network connect bridge",
        "container start one",
        "network disconnect bridge",
        "container die one",
        "container destroy one",
        "container destroy two",
        "network create net",
        "image tag evented:1",
        "container prune <no value>",
        "network prune <no value>",
        "volume prune <no value>",
    }

    async def tag() -> None:
        """Until it is seen: the front may just be beginning to listen to the local engine."""
        while not wanted <= seen:
            await tenant.docker("tag", IMAGE, "evented:1")

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(tag())
        while not wanted <= seen:
            seen.add((await process.stdout.readline()).decode().strip())
    process.kill()
    await process.communicate()
    await tenant.docker("rmi", "evented:1")


async def test_the_same_name_twice_is_a_conflict_and_rm_makes_it_free_at_once(tenant: Tenant) -> None:
    await tenant.docker("create", "--name", "one", *LIMITS, IMAGE, "true")
    assert "is already in use by container" in await tenant.refused("create", "--name", "one", *LIMITS, IMAGE)
    for _ in range(3):
        await tenant.docker("run", "--rm", "--name", "again", *LIMITS, IMAGE, "true")


async def test_what_the_market_cannot_give_is_refused_before_anything_is_paid(tenant: Tenant) -> None:
    for options in (
        ["--privileged"],
        ["-v", "/etc:/x"],
        ["--network", "host"],
        ["-p", "53:53/sctp"],
        ["--pid", "host"],
    ):
        message = await tenant.refused("run", "--name", "bad", *options, IMAGE, "true")
        assert "Error response from daemon" in message
        assert "No such container: bad" in message or "bad" in message or "TCP" in message
    assert tenant.leases.obtained == []


async def test_an_image_that_is_not_there_is_asked_for_as_docker_does(tenant: Tenant) -> None:
    message = await tenant.refused("run", "--pull", "never", "nobody/nothing:1", "true")
    assert "No such image: nobody/nothing:1" in message


async def test_images_are_the_local_engines(tenant: Tenant) -> None:
    assert IMAGE in await tenant.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
    await tenant.docker("tag", IMAGE, "mine:1")
    assert await tenant.docker("image", "inspect", "-f", "{{.Os}}", "mine:1") == "linux"
    saved = await tenant.process("save", "mine:1")
    out, _ = await asyncio.wait_for(saved.communicate(), 30)
    loading = await tenant.process("load")
    message, _ = await asyncio.wait_for(loading.communicate(out), 30)
    assert b"mine:1" in message
    await tenant.docker("rmi", "mine:1")


async def test_version_info_and_system_df(tenant: Tenant) -> None:
    assert await tenant.docker("version", "-f", "{{.Server.APIVersion}}") == "1.44"
    assert await tenant.docker("info", "-f", "{{.Name}} {{.OSType}}") == "dockage linux"
    await tenant.run("--name", "box", IMAGE, "sleep", "60")
    assert "Containers" in await tenant.docker("system", "df")
    assert "box" in await tenant.docker("system", "df", "-v")


async def test_commit_brings_what_a_container_wrote_to_the_tenants_own_engine(tenant: Tenant) -> None:
    settings = ["-e", 'A=b "$c"', "-w", "/tmp", "--label", "k=v w", "--health-cmd", "test -e /made"]
    await tenant.run("--name", "box", *settings, IMAGE, "sleep", "60")
    await tenant.docker("exec", "box", "sh", "-c", "echo inside > /made")
    await tenant.docker("commit", "-m", "why", "-c", "CMD cat /made", "box", "mine:1")
    assert (await tenant.inspect("box"))["State"]["Status"] == "running", "it was held only meanwhile"
    [image] = json.loads(await tenant.docker("image", "inspect", "mine:1"))
    config = image["Config"]
    assert 'A=b "$c"' in config["Env"]
    assert (config["WorkingDir"], config["Labels"], image["Comment"]) == ("/tmp", {"k": "v w"}, "why")
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "test -e /made"]
    assert await tenant.docker("run", "--rm", *LIMITS, "mine:1") == "inside"
    await tenant.docker("rmi", "mine:1")


async def test_update_lets_the_lease_grow_and_is_remembered(tenant: Tenant) -> None:
    await tenant.run("--name", "box", IMAGE, "sleep", "60")
    [before] = tenant.leases.all()
    await tenant.docker("update", "--memory", "96m", "--memory-swap", "96m", "--restart", "always", "box")
    [after] = tenant.leases.all()
    assert after.limits.memory_bytes - before.limits.memory_bytes == 32 << 20
    await tenant.leases.end(after.id, "gone")
    await tenant.docker("start", "box")
    found = (await tenant.inspect("box"))["HostConfig"]
    assert (found["Memory"], found["RestartPolicy"]["Name"]) == (96 << 20, "always")


async def test_a_row_of_short_runs_rents_once(tenant: Tenant) -> None:
    tenant.linger = 3.0
    await tenant.stop()
    await tenant.start()
    for _ in range(3):
        await tenant.docker("run", "--rm", *LIMITS, IMAGE, "true")
    assert len(tenant.leases.obtained) == 1
    await tenant.docker("run", "--rm", "--memory", "32m", "--cpus", "0.5", IMAGE, "true")
    assert len(tenant.leases.obtained) == 2, "another size is another lease"
    await tenant.docker("run", "--rm", *LIMITS, "--label", "dockage.region=eu", IMAGE, "true")
    assert len(tenant.leases.obtained) == 3, "another wish too"
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_an_image_is_sent_once_a_lease_and_again_if_the_provider_lost_it(
    tenant: Tenant, lab: Lab
) -> None:
    await tenant.docker("network", "create", "net")
    for name in ("one", "two"):
        await tenant.run("--name", name, "--network", "net", IMAGE, "sleep", "60")
    [tag] = lab.docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=dockage.lease/*"
    ).split()
    await asyncio.to_thread(lab.docker, "rmi", tag)
    await tenant.run("--name", "three", "--network", "net", IMAGE, "sleep", "60")
    assert tag in lab.docker("images", "--format", "{{.Repository}}:{{.Tag}}")


async def test_a_network_may_be_named_by_its_id(tenant: Tenant) -> None:
    net = await tenant.docker("network", "create", "net")
    await tenant.run("--name", "web", "--network", net[:12], IMAGE, "sh", "-c", SITE)
    assert "hello" in await tenant.docker(
        "run", "--rm", *LIMITS, "--network", net, IMAGE, "wget", "-qO-", "http://web/"
    )


async def test_at_an_hour_at_which_nothing_runs_it_is_made_and_says_until_when(tenant: Tenant) -> None:
    hour = ["08:00 UTC"]
    tenant.front.changes.asleep = lambda _, labels: hour[0] if labels else ""
    label = ("--label", "dockage.schedule=00:00-08:00 0")
    made = await tenant.tried("run", "-d", *LIMITS, "--name", "shop", *label, IMAGE, "sleep", "60")
    assert made.code == 0
    assert "shop sleeps until 08:00 UTC (dockage.schedule)" in made.err
    status = ("ps", "-a", "--format", "{{.Status}}")
    assert await tenant.docker(*status) == "Created, sleeps until 08:00 UTC"
    assert [one.runs for one in tenant.front.recipe("shop").containers] == [True]
    hour[0] = ""
    await tenant.docker("start", "shop")
    assert (await tenant.docker(*status)).startswith("Up")
    await tenant.docker("stop", "-t", "0", "shop")
    await until(lambda: [one.runs for one in tenant.front.recipe("shop").containers] == [False])
