"""What a chunk stores stays only if every check at its end passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Plan
from pesto_runtime.errors import (
    AlgorithmFailed,
    PestoError,
    ProcessChanged,
    SceneChanged,
    StoreFailed,
    Unreachable,
)
from pesto_runtime.hrefs import file_href
from pesto_runtime.run.context import RunContext
from pesto_runtime.run.guard import ChunkGuard
from pesto_runtime.store import Store

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(
    run="r", pipeline={}, scenes={}, parameters={}, services={}, keys={}, phases=(), store=""
)


class Check:
    """Raises the errors that it is given, one per call; None passes, as does every later call."""

    def __init__(self, *errors: PestoError | None) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> None:
        """Raise the next error."""
        self.calls += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    store = Store(file_href(tmp_path / "store"))
    store.put("blocks/of another chunk", b"0")
    return RunContext(PLAN, store, {}, {}, (), {}, {})


def run(context: RunContext, *checks: Check, fails: Exception | None = None) -> None:
    """A chunk that stores three objects, and fails afterwards if it is given an error."""
    with ChunkGuard(context, checks=checks) as guarded:
        for name in ("blocks/1", "partials/2"):
            guarded.store.put(name, b"1")
        guarded.store.put_json("scalars/3.json", None)
        assert guarded.store.get("blocks/1") == b"1", "it reads what it has stored"
        if fails is not None:
            raise fails


def stored(context: RunContext) -> set[str]:
    return {each for folder in ("blocks", "partials", "scalars")
            for each in context.store.names(folder)}  # fmt: skip


THERE = {"blocks/of another chunk"}
MADE = {"blocks/1", "partials/2", "scalars/3.json"}


def test_objects_stay_when_all_checks_pass_at_both_ends(context: RunContext) -> None:
    """The control of the other tests here; each check runs exactly twice."""
    checks = Check(), Check()
    run(context, *checks)
    assert stored(context) == THERE | MADE
    assert [each.calls for each in checks] == [2, 2]


@pytest.mark.parametrize("kind", [SceneChanged, ProcessChanged])
@pytest.mark.parametrize("at", ["start", "end"])
def test_after_a_change_none_of_its_objects_stays(
    context: RunContext, kind: type[PestoError], at: str
) -> None:
    """At the start nothing runs at all; objects of other chunks are not touched."""
    errors = (kind("other"),) if at == "start" else (None, kind("other"))
    with pytest.raises(kind, match="other"):
        run(context, Check(), Check(*errors))
    assert stored(context) == THERE


def test_objects_that_cannot_be_verified_do_not_stay(context: RunContext) -> None:
    """The server of the scene does not respond at the end: a retry computes them again."""
    with pytest.raises(Unreachable):
        run(context, Check(None, Unreachable("no answer")))
    assert stored(context) == THERE


def test_a_failure_of_its_own_leaves_verified_objects(context: RunContext) -> None:
    """They are right: a retry computes the rest."""
    check = Check()
    with pytest.raises(AlgorithmFailed):
        run(context, check, fails=AlgorithmFailed("no"))
    assert stored(context) == THERE | MADE
    assert check.calls == 2


def test_a_change_explains_the_failure_that_it_caused(context: RunContext) -> None:
    """A scene that was replaced makes reading fail: the error is the change, not the reading."""
    with pytest.raises(SceneChanged) as caught:
        run(context, Check(None, SceneChanged("other")), fails=AlgorithmFailed("unreadable"))
    assert isinstance(caught.value.__cause__, AlgorithmFailed)
    assert stored(context) == THERE


def test_a_change_that_is_undone_before_the_end_is_one(context: RunContext) -> None:
    """A service has seen another scene, which has gone again: pixels of both may be stored."""
    with pytest.raises(SceneChanged, match="seen by a service"):
        run(context, Check(), fails=SceneChanged("seen by a service"))
    assert stored(context) == THERE


def test_nothing_is_stored_after_a_change(context: RunContext) -> None:
    """The cheap checks run before each object; the one after the change is never written."""
    before_put = Check(None, SceneChanged("other"))
    guard = ChunkGuard(context, checks=[Check()], before_put=[before_put])
    guarded = guard.__enter__()
    guarded.store.put("blocks/1", b"1")
    with pytest.raises(SceneChanged) as caught:
        guarded.store.put("blocks/2", b"2")
    assert stored(context) == {*THERE, "blocks/1"}
    guard.__exit__(SceneChanged, caught.value, None)
    assert stored(context) == THERE


def test_an_object_that_is_gone_already_does_not_stop_the_deletion(context: RunContext) -> None:
    """A repair may have deleted one of them as damaged."""
    guard = ChunkGuard(context, checks=[Check(None, SceneChanged("other"))])
    guarded = guard.__enter__()
    for name in ("blocks/1", "blocks/2", "blocks/3"):
        guarded.store.put(name, b"1")
    context.store.delete(["blocks/1"])
    with pytest.raises(SceneChanged):
        guard.__exit__(None, None, None)
    assert stored(context) == THERE


def test_objects_that_cannot_be_deleted_are_named(context: RunContext, tmp_path: Path) -> None:
    """The user must know that the store has wrong pixels."""
    with pytest.raises(SceneChanged, match="1 objects of this chunk cannot be deleted") as caught:
        _store_below_a_file(context, tmp_path)
    assert isinstance(caught.value.__cause__, StoreFailed)


def _store_below_a_file(context: RunContext, tmp_path: Path) -> None:
    with ChunkGuard(context, checks=[Check(None, SceneChanged("other"))]) as guarded:
        guarded.store.put("partials/1", b"1")
        (tmp_path / "store" / "partials" / "1").unlink()
        (tmp_path / "store" / "partials").rmdir()
        (tmp_path / "store" / "partials").touch()  # deleting below a file fails, also for root
