"""Give pytest the contract kit: `pytest --pesto-url URL`, and fixtures for a user's own tests.

pytest loads this file in every session in which the package is installed, so it imports nothing
else until a URL is given.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pesto_runtime.client.client import Client
    from pesto_runtime.contract import Description
    from pesto_runtime.kit.check_list import Check
    from pesto_runtime.kit.service_under_test import ServiceUnderTest

_SERVICE = pytest.StashKey["ServiceUnderTest"]()
_CLOSING = pytest.StashKey[ExitStack]()
_KIT = "contract kit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define the options of the kit."""
    group = parser.getgroup("pesto", "contract kit of PESTO services")
    group.addoption(
        "--pesto-url", metavar="URL_OR_TARGET",
        help="Run the contract kit against this service, or serve this target for it. With paths "
        "of tests, run these tests, and the kit only with --pesto-kit.",
    )  # fmt: skip
    group.addoption("--pesto-kit", action="store_true", help="Run the kit beside the user's tests.")
    group.addoption(
        "--pesto-profile", action="append", default=[], metavar="NAME",
        help="Profile of the target; repeat it for several.",
    )  # fmt: skip
    group.addoption(
        "--pesto-input", action="append", default=[], metavar="NAME=VALUE",
        help="An input of the sample call, as for `pesto process -i`; the others are made.",
    )  # fmt: skip
    group.addoption(
        "--pesto-slow", action="append", default=[], metavar="NAME=VALUE",
        help="An input with which a call lasts a second or more: to test health and cancellation.",
    )  # fmt: skip
    group.addoption(
        "--pesto-pin", metavar="DIGEST_OR_FILE",
        help="The description must be this one: sha256:…, or a file of `pesto discover`.",
    )  # fmt: skip
    parser.addini("pesto_url", "URL or target of the fixtures, if --pesto-url is not given.")


def pytest_configure(config: pytest.Config) -> None:
    """Show the reasons of checks that do not apply."""
    if config.getoption("--pesto-url"):
        config.option.reportchars += "s"
        # Windows of pixels, which the probe sends, have no place.
        config.addinivalue_line("filterwarnings", "ignore:Dataset has no geotransform")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the connections, and stop the service of a target."""
    if _CLOSING in config.stash:
        config.stash[_CLOSING].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Collect nothing else if no paths are given."""
    config = session.config
    if config.getoption("--pesto-url") and not _has_own_tests(config):
        config.args = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each check of the kit."""
    is_wanted = config.getoption("--pesto-kit") or not _has_own_tests(config)
    if config.getoption("--pesto-url") and is_wanted:
        kit = KitCollector.from_parent(session, name=_KIT, nodeid=_KIT)
        items[:0] = session.genitems(kit)


def _has_own_tests(config: pytest.Config) -> bool:
    return config.args_source is pytest.Config.ArgsSource.ARGS


class KitCollector(pytest.Collector):
    """The checks of the kit as tests."""

    def collect(self) -> list[pytest.Item]:
        """Return a test for each check."""
        from pesto_runtime.kit.contract_kit import all_checks

        return [
            KitItem.from_parent(self, name=name, check=check)
            for name, check in all_checks().items()
        ]


class KitItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # those of pytest
        self.check = check

    def runtest(self) -> None:
        """Run the check; one that does not apply is skipped with its reason."""
        from pesto_runtime.kit.claims import NotApplicable

        try:
            self.check.run(service_of(self.config))
        except NotApplicable as reason:
            pytest.skip(f"{self.name}: not applicable: {reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]  # a text is enough
        """Return the claim, and what was seen instead."""
        from pesto_runtime.errors import PestoError

        if not isinstance(excinfo.value, (AssertionError, PestoError)):
            return str(super().repr_failure(excinfo))
        return f"does not hold: {self.check.claim}\nseen: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the claim as the headline of a failure."""
        return Path(_KIT), None, f"{self.name}: {self.check.claim}"


def service_of(config: pytest.Config) -> ServiceUnderTest:
    """Return the service of the options, one per session; skip a test if there is none."""
    if _SERVICE in config.stash:
        return config.stash[_SERVICE]
    given = config.getoption("--pesto-url") or config.getini("pesto_url")
    if not given:
        pytest.skip("no service to test: --pesto-url URL_OR_TARGET, or `pesto_url` in the settings")
    from pesto_runtime.kit.service_under_test import ServiceUnderTest
    from pesto_runtime.projects.running_service import running_service

    stack = config.stash[_CLOSING] = ExitStack()
    url = stack.enter_context(running_service(str(given), config.getoption("--pesto-profile")))
    service = ServiceUnderTest.at(
        url,
        given=_values(config.getoption("--pesto-input")),
        slow=_values(config.getoption("--pesto-slow")),
        pin=config.getoption("--pesto-pin"),
    )
    stack.callback(service.close)
    config.stash[_SERVICE] = service
    return service


def _values(texts: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise pytest.UsageError(f"{wrong[0]!r} is not NAME=VALUE")
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="session")
def pesto_service(request: pytest.FixtureRequest) -> ServiceUnderTest:
    """The service under test: raw requests, its description, a sample call."""
    return service_of(request.config)


@pytest.fixture(scope="session")
def pesto_client(pesto_service: ServiceUnderTest) -> Client:
    """A client of the service under test."""
    return pesto_service.client


@pytest.fixture(scope="session")
def pesto_description(pesto_service: ServiceUnderTest) -> Description:
    """The description of the service under test."""
    return pesto_service.description
