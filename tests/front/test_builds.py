"""Images are made with the stock tools, through our socket, in the tenant's own engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontlab import LIMITS, Tenant
from hostlab import IMAGE, Lab


@pytest.fixture
def context(folder: Path, tenant: Tenant, docker_config: Path) -> Path:
    """A build context with a file, and a compose project that builds it."""
    tenant.env["DOCKER_CONFIG"] = str(docker_config)
    path = folder / "ctx"
    path.mkdir()
    (path / "hello").write_text("hello from a file\n")
    (path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY hello /hello\nRUN cat /hello > /made\n")
    (path / "compose.yaml").write_text("services:\n  web:\n    build: .\n    image: built:compose\n")
    return path


@pytest.mark.parametrize("tool", ["classic", "buildx", "compose"])
async def test_what_is_built_runs_on_a_lease(tenant: Tenant, lab: Lab, context: Path, tool: str) -> None:
    """buildx speaks gRPC over h2c, both ways: the engine asks back for the files over /session."""
    image = f"built:{tool}"
    match tool:
        case "classic":
            tenant.env["DOCKER_BUILDKIT"] = "0"
            await tenant.docker("build", "-q", "--network", "none", "-t", image, str(context))
        case "buildx":
            await tenant.docker("buildx", "build", "--network", "none", "-t", image, str(context))
        case _:
            await tenant.docker("compose", "--project-directory", str(context), "build")
    try:
        assert await tenant.docker("images", "-q", "--no-trunc", image) == lab.docker(
            "images", "-q", "--no-trunc", image
        )
        assert "hello" in await tenant.docker("run", "--rm", *LIMITS, image, "cat", "/made")
    finally:
        await tenant.docker("rmi", image)


async def test_a_builder_of_buildxs_own_is_refused_before_it_is_pulled(tenant: Tenant, context: Path) -> None:
    """Its container would be privileged; the engine's own builder is what there is."""
    tenant.env["BUILDX_CONFIG"] = str(context / "buildx")
    said = await tenant.refused("buildx", "create", "--name", "mine", "--bootstrap")
    assert "docker buildx use default" in said
    assert "wants privileges" in await tenant.refused("create", "--name", "buildx_buildkit_mine0", IMAGE)
    assert tenant.leases.obtained == []


async def test_save_load_tag_and_history_are_the_engines(tenant: Tenant, lab: Lab, folder: Path) -> None:
    await tenant.docker("tag", IMAGE, "other:1")
    await tenant.docker("save", "-o", str(folder / "other.tar"), "other:1")
    assert await tenant.docker("history", "-q", "other:1") == lab.docker("history", "-q", "other:1")
    await tenant.docker("rmi", "other:1")
    assert await tenant.docker("load", "-i", str(folder / "other.tar")) == "Loaded image: other:1"
    await tenant.docker("rmi", "other:1")
    refused = await tenant.refused("push", "127.0.0.1:9/nobody/there:1")
    assert "does not exist" in refused or "not found" in refused
    assert "127.0.0.1:9" in await tenant.refused("pull", "127.0.0.1:9/nobody/there:1")
