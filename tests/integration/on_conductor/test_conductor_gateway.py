"""A Conductor behind a gateway with tokens, TLS, a path prefix and a user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import certificate
from tests.support.commands import pesto, started
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import chain, run_local
from tests.support.token_gateway import KEY, token_gateway

if TYPE_CHECKING:
    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]


def arguments_with(secret: str) -> list[str]:
    """Return the arguments of all processes that have a text in them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_text(errors="replace")
        except OSError:  # it has ended
            continue
        if secret in text:
            found.append(text)
    return found


def test_a_run_passes_a_gateway_and_shows_no_secret(
    conductor: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registers, works and follows with tokens that are renewed; without a key it says so."""
    scene = write_scene(tmp_path / "s.tif", noise(300, 300))
    document = chain("grow")
    (tmp_path / "p.json").write_text(json.dumps(document))
    local = run_local(document, tmp_path / "local", {"scene": scene})
    file = certificate(tmp_path)
    with token_gateway(conductor.url, file) as url:
        monkeypatch.setenv("CONDUCTOR_SERVER_URL", url.replace("//", "//ops:s%33cret@"))
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        refused = pesto("conductor", "status")
        assert refused.returncode == 2
        assert "CONDUCTOR_AUTH_KEY" in refused.stderr
        monkeypatch.setenv("CONDUCTOR_AUTH_KEY", KEY["keyId"])
        monkeypatch.setenv("CONDUCTOR_AUTH_SECRET", KEY["keySecret"])
        options = ("-i", f"scene={scene}", "-o", tmp_path / "out", "--engine", "conductor")
        with started("run", tmp_path / "p.json", *options) as run:
            shown = []
            while run.poll() is None:
                shown += arguments_with("s%33cret")
            said = "".join(run.communicate())
        assert run.returncode == 0, said
        assert shown == []
        assert "cret" not in said + refused.stderr
    conductor.register()  # other tests want impatient task definitions
    assert sha256_of(tmp_path / "out" / "image.tif") == local.sha256()
