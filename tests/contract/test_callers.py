"""Callers with tokens, each with its own jobs; web pages, host names and TLS."""

from __future__ import annotations

import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from pesto_runtime.client.client import Client
from pesto_runtime.errors import CredentialsRefused, InvalidInput
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.exposure import Exposure
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.tokens import Callers
from tests.contract.serving import AT_ONCE, Server, served, until
from tests.contract.web import in_process, ready
from tests.support.commands import PESTO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAP = "tests/contract/processes.py:nap"
SAME = "tests/contract/processes.py:same"
ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"


def bearer(token: str) -> dict[str, str]:
    """The credentials of a caller."""
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two callers."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# callers\nalice {ALICE}  # of the team\n\nbob {BOB}\n")
    return file


@pytest.fixture(scope="module")
def server(tokens: Path) -> Iterator[Server]:
    """A service that knows both, and one web page."""
    words = ["--token-file", str(tokens), "--cors", "https://maps.example.org"]
    with served(NAP, *words, "--allowed-host", "127.0.0.1") as server:
        yield server


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("no-such-token-0123"), {"Authorization": "Bearer"}, {"Authorization": ALICE},
     {"Authorization": f"Basic {ALICE}"}, bearer(ALICE[:-1]), bearer(f"{ALICE} {BOB}")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/describe", "/process", "/jobs", "/jobs/x", "/metrics", "/no"])
def test_without_a_known_token_nothing_is_told(
    server: Server, path: str, headers: dict[str, str]
) -> None:
    """Except health, which monitoring asks for; the control is a caller with a token."""
    refused = server("GET", path, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.json()["type"] == "urn:pesto:error:credentials-refused"
    assert server("GET", "/health", headers=headers).text == "OK"
    assert server("GET", "/describe", headers=bearer(ALICE)).status_code == 200


def test_a_caller_sees_its_own_jobs_alone(server: Server) -> None:
    """By list, by id, by key, to read and to delete; others learn nothing of it."""
    mine, key = bearer(ALICE) | AT_ONCE, {"Idempotency-Key": "k"}
    first = server("POST", "/process", json={"seconds": 0}, headers=mine | key).json()["id"]
    theirs = server("POST", "/process", json={"seconds": 0}, headers=bearer(BOB) | AT_ONCE | key)
    assert theirs.status_code == 201
    assert theirs.json()["id"] != first, "one key of two callers is two jobs"
    assert [*server("GET", "/jobs", headers=bearer(ALICE)).json()] == [first]
    assert [*server("GET", "/jobs?key=k", headers=bearer(BOB)).json()] == [theirs.json()["id"]]
    below = ("", "/status", "/log", "/results", "/results/slept")
    requests = [("GET", f"/jobs/{first}{each}") for each in below]
    requests += [("DELETE", f"/jobs/{first}/results/slept"), ("DELETE", f"/jobs/{first}")]
    absent = server("GET", "/jobs/none", headers=bearer(BOB)).json()["detail"]
    for method, path in requests:
        refused = server(method, path, headers=bearer(BOB))
        assert refused.status_code == 404
        assert refused.json()["detail"] == absent.replace("none", first)
    waited = server("GET", f"/jobs/{first}", headers=bearer(ALICE) | {"Prefer": "wait=20"}).json()
    assert waited["state"] == "successful"
    for method, path in requests:
        assert server(method, path, headers=bearer(ALICE)).status_code == 200, path


def test_a_quota_is_of_one_caller(tokens: Path) -> None:
    """Calls, jobs and bytes; other callers go on, and what ends or is dismissed is free again."""
    words = ["--token-file", str(tokens), "--caller-calls", "1", "--caller-jobs", "2"]
    with served(NAP, *words, "--caller-mib", "1") as server:

        def call(
            token: str, seconds: float, padding: int = 0, *, as_job: bool = False
        ) -> httpx.Response:
            body = f'{{"seconds": {seconds}}}'.encode() + b" " * padding
            sent = bearer(token) | (AT_ONCE if as_job else {})
            return server("POST", "/process", content=body, headers=sent)

        def admitted() -> int:
            document = server("GET", "/health", headers={"Accept": "application/json"}).json()
            count: int = document["queue"]["admitted"]
            return count

        with ThreadPoolExecutor() as threads:
            running = threads.submit(call, ALICE, 3)
            until(lambda: admitted() == 1)
            refused = call(ALICE, 0)
            assert (refused.status_code, refused.json()["type"]) == (
                429, "urn:pesto:error:over-quota",
            )  # fmt: skip
            assert int(refused.headers["retry-after"]) >= 1
            assert call(BOB, 0).status_code == 200
            assert running.result().status_code == 200
        assert call(ALICE, 0).status_code == 200
        first, second = (call(ALICE, 60, as_job=True).json()["id"] for _ in range(2))
        assert call(ALICE, 0, as_job=True).status_code == 429
        assert call(BOB, 60, as_job=True).status_code == 201
        for job in (first, second):
            assert server("DELETE", f"/jobs/{job}", headers=bearer(ALICE)).status_code == 200
        third = call(ALICE, 60, 600_000, as_job=True)
        assert third.status_code == 201
        assert "bytes" in call(ALICE, 60, 600_000, as_job=True).json()["detail"]
        server("DELETE", f"/jobs/{third.json()['id']}", headers=bearer(ALICE))
        assert call(ALICE, 60, 600_000, as_job=True).status_code == 201


def test_the_jobs_of_ogc_are_those_of_their_caller(server: Server) -> None:
    """At the root of the service, as below /api/v1; without a token there is nothing."""
    root = server.url.removesuffix("/api/v1")
    headers = {"Prefer": "respond-async", **bearer(ALICE)}
    body = {"inputs": {"seconds": 0}}
    answer = server.http.post(f"{root}/processes/nap/execution", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    job = answer.json()["jobID"]
    for verb, path in (("GET", ""), ("GET", "/results"), ("DELETE", "")):
        url = f"{root}/jobs/{job}{path}"
        assert server.http.request(verb, url, headers=bearer(BOB)).status_code == 404
        assert server.http.request(verb, url).status_code == 401
    for token, count in ((ALICE, 1), (BOB, 0)):
        listed = server.http.get(f"{root}/jobs", headers=bearer(token)).json()["jobs"]
        assert sum(each["jobID"] == job for each in listed) == count
    assert server.http.get(f"{root}/jobs/{job}", headers=bearer(ALICE)).status_code == 200


def test_jobs_of_callers_survive_a_restart(tokens: Path, tmp_path: Path) -> None:
    """They are still those of their callers."""
    words = [NAP, "--token-file", str(tokens), "--jobs", str(tmp_path / "jobs")]
    with served(*words) as server:
        headers = bearer(ALICE) | AT_ONCE
        job = server("POST", "/process", json={"seconds": 0.5}, headers=headers).json()["id"]
    with served(*words) as server:
        done = server("GET", f"/jobs/{job}", headers=bearer(ALICE) | {"Prefer": "wait=20"}).json()
        assert done["state"] == "successful"
        result = server("GET", f"/jobs/{job}/results/slept", headers=bearer(ALICE))
        assert result.text == "0.5"
        assert server("GET", f"/jobs/{job}", headers=bearer(BOB)).status_code == 404


def test_our_client_sends_a_token(server: Server) -> None:
    """And tells a wrong one as such."""
    with Client(server.url, headers=bearer(ALICE)) as client:
        assert client.process({"seconds": 0}) == {"slept": 0}
    with Client(server.url) as client, pytest.raises(CredentialsRefused, match="Bearer"):
        client.process({"seconds": 0})


def test_one_web_page_may_call_it(server: Server) -> None:
    """Its browser asks before the call, without a token; other origins and host names may not."""
    asked = {"Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip
    for origin, allowed in (("https://maps.example.org", True), ("https://evil.example", False)):
        preflight = server("OPTIONS", "/process", headers={"Origin": origin, **asked})
        assert (preflight.status_code == 200) is allowed
        call = server("POST", "/process", json={"seconds": 0},
                      headers=bearer(ALICE) | {"Origin": origin})  # fmt: skip
        assert (call.headers.get("access-control-allow-origin") == origin) is allowed
    other = server("GET", "/describe", headers=bearer(ALICE) | {"Host": "evil.example"})
    assert other.status_code == 400


def test_links_have_the_public_address() -> None:
    """Behind a proxy with a path; fields of the request change nothing. The control has none."""
    forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    public = "https://eo.example.org/masks"
    with served(NAP, "--public-url", f"{public}/") as server:
        job = server("POST", "/process", json={"seconds": 0}, headers=AT_ONCE | forged)
        assert job.headers["location"] == f"{public}/api/v1/jobs/{job.json()['id']}"
        server.over(job.json()["id"])
        hrefs = [each["href"] for each in server("GET", "/describe").json()["_links"].values()]
        hrefs += server("GET", f"/jobs/{job.json()['id']}/results").json().values()
        assert all(each.startswith(f"{public}/api/v1/") for each in hrefs)
    with served(NAP) as server:
        job = server("POST", "/process", json={"seconds": 0}, headers=AT_ONCE | forged)
        assert job.headers["location"].startswith(server.url)


def test_a_trusted_proxy_states_the_address() -> None:
    """By Forwarded or by X-Forwarded-…; a path is no path of ours, and of two proxies the last."""
    by_name = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example, eo.example"}
    standard = {"Forwarded": 'for=9.9.9.9, for="[::1]";proto=https;host="eo.example"'}
    with served(NAP, "--trusted-proxy", "127.0.0.0/8") as server:
        for fields in (by_name, standard, standard | {"X-Forwarded-Host": "b.example"}):
            for prefix in ("/masks", "", "/masks/..//", "javascript:"):
                sent = AT_ONCE | fields | {"X-Forwarded-Prefix": prefix}
                job = server("POST", "/process", json={"seconds": 0}, headers=sent)
                path = "/masks" if prefix == "/masks" else ""
                expected = f"https://eo.example{path}/api/v1/jobs/{job.json()['id']}"
                assert job.headers["location"] == expected
        assert server("GET", "/describe").json()["_links"]["self"]["href"].startswith(server.url)


def test_tls_by_the_files_of_a_certificate(tmp_path: Path) -> None:
    """A client that trusts it reaches the service; the control does not trust it."""
    authority = trustme.CA()
    certificate, key, trust = (tmp_path / each for each in ("cert.pem", "key.pem", "ca.pem"))
    own = authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(str(certificate))
    own.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(trust))
    with _https("--tls-cert", str(certificate), "--tls-key", str(key)) as url:
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(trust))
        with httpx.Client(verify=trusted, trust_env=False) as http:
            assert http.get(f"{url}/health").text == "OK"
            links = http.get(f"{url}/describe").json()["_links"]
            assert links["execution"]["href"] == f"{url}/process"
        with httpx.Client(trust_env=False) as http, pytest.raises(httpx.ConnectError):
            http.get(f"{url}/health")


@contextmanager
def _https(*options: str) -> Iterator[str]:
    words = [*PESTO, "serve", NAP, "--port", "0", "--workers", "1", *options]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.kill()
            process.stderr.read()


def test_beyond_loopback_it_wants_tokens(tokens: Path) -> None:
    """Or to be told that it need not; nothing is served before that."""
    callers = Callers.read(tokens)
    for host in ("0.0.0.0", "::", "10.1.2.3", "example.org"):  # noqa: S104  # never bound
        with pytest.raises(InvalidInput, match="--token-file FILE, or --insecure"):
            Exposure().require_safe(host)
        Exposure(callers=callers).require_safe(host)
        Exposure(is_open=True).require_safe(host)
    for host in ("127.0.0.1", "localhost", "::1"):
        Exposure().require_safe(host)
    words = [*PESTO, "serve", NAP, "--port", "0", "--host", "0.0.0.0"]  # noqa: S104  # refused
    refused = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 2
    assert "anybody who reaches this address" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line"),
        ("# nothing\n", "no line"),
        ("alice\n", "line 1: must be `NAME TOKEN`"),
        ("a short\n", "under 16 characters"),
        (f"a {ALICE}\nb {ALICE}\n", "line 2: b, or its token, is there twice"),
        (f"a {ALICE}\na {BOB}\n", "line 2: a, or its token, is there twice"),
        (f"a {ALICE} x\n", "line 1"),
    ],
)
def test_a_wrong_token_file_is_refused_without_its_tokens(
    tmp_path: Path, text: str, said: str
) -> None:
    """Before anything is served."""
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=said) as caught:
        Callers.read(file)
    assert ALICE not in str(caught.value)
    with pytest.raises(InvalidInput, match="cannot be read"):
        Callers.read(tmp_path / "none")


def test_the_files_of_tls_belong_together(tmp_path: Path) -> None:
    """One alone, or one that is no file, is refused."""
    file = tmp_path / "cert.pem"
    file.write_text("")
    with pytest.raises(InvalidInput, match="belong together"):
        Exposure(certificate=file).require_safe("127.0.0.1")
    with pytest.raises(InvalidInput, match="is no file"):
        Exposure(certificate=file, private_key=tmp_path / "no").require_safe("127.0.0.1")
    with pytest.raises(InvalidInput, match="is no URL"):
        Exposure(public_url="eo.example.org").require_safe("127.0.0.1")


@pytest.mark.parametrize("header", ["Host", "Origin", "X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_no_header_opens_the_files_of_this_machine(tmp_path: Path, header: str) -> None:
    """They are closed without the option, whatever a request says of its sender."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*")
    loopback = {"Host": "localhost", "Origin": "http://localhost"}.get(header, "127.0.0.1")
    with in_process(SAME, (), Limits(workers=1), gate=Gate()) as web:
        ready(web)
        document = {"image": path.as_uri()}
        answer = web("POST", "/process", json=document, headers={header: loopback})
    assert answer.json()["type"] == "urn:pesto:error:href-refused"


def test_with_local_files_a_page_of_a_rebound_name_is_refused() -> None:
    """Such a page sends its own name as the host; `--allowed-host` replaces the default."""
    elsewhere = {"Host": "page.example.org"}
    with served(NAP, "--host", "127.0.0.2", any_host=False) as server:
        refused = server("GET", "/describe", headers=elsewhere)
        assert refused.status_code == 400
        assert (
            "'page.example.org'; if it is, start it with --allowed-host" in refused.json()["detail"]
        )
        for name in ("localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.2", "[::1]:9"):
            assert server("GET", "/describe", headers={"Host": name}).status_code == 200
    with served(NAP, "--allowed-host", "page.example.org") as server:
        assert server("GET", "/describe", headers=elsewhere).status_code == 200
