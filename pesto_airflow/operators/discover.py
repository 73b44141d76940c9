"""Request a service's description; save it, or compare it with a saved one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from airflow.sdk import BaseOperator

from pesto_airflow.catalog import require_no_drift
from pesto_airflow.errors import PestoRetryPolicy, native_errors
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.process_call import ServiceCall
from pesto_runtime.errors import InvalidContract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_airflow.arguments import TaskArguments
    from pesto_runtime.client.describing import Described


class PestoDiscoverOperator(BaseOperator):
    """Request a service's description; fail if it differs from its pin in a breaking way.

    The task's result is `name`, `version`, `url`, `digest`, `changes` since the pin as texts, and
    `saved`, the file that was written, or else the `description` itself.
    """

    template_fields: Sequence[str] = ("service", "pesto_conn_id", "save", "pin")
    operator_extra_links = (PestoServiceLink(),)
    ui_color = "#d5e3eb"

    def __init__(
        self,
        *,
        service: str | None = None,
        pesto_conn_id: str | None = None,
        save: str | Path | None = None,
        pin: str | Path | None = None,
        **arguments: Unpack[TaskArguments],
    ) -> None:
        """Select a service.

        Args:
            service: As of `PestoProcessOperator`.
            pesto_conn_id: As of `PestoProcessOperator`.
            save: Folder to write `NAME@VERSION.json` to, as `pesto discover --save` does.
            pin: A saved description: the task fails with every breaking change since. Or a digest,
                `sha256:…`: the task fails with any change.
            arguments: Arguments of every operator.
        """
        super().__init__(**arguments)
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.save = None if save is None else str(save)
        self.pin = None if pin is None else str(pin)
        if self.retry_policy is None:
            self.retry_policy = PestoRetryPolicy()

    def service_url(self) -> str:
        """URL of the service, up to and including `/api/v1`."""
        return self._service_call(None).url

    def execute(self, context: Context) -> dict[str, JsonValue]:  # noqa: ARG002  # Airflow's signature
        """Request the description, compare it, save it.

        Raises:
            PestoTaskFailed: the service drifted from its pin, or returned no valid description.
            PestoTryAgain: it is unreachable.
        """
        with native_errors():
            is_digest = self.pin is not None and self.pin.startswith("sha256:")
            call = self._service_call(None if is_digest else self.pin)
            with call.client() as client:
                url, described = client.url, client.described
            if is_digest and self.pin != described.digest:
                raise InvalidContract(f"{url} is {described.digest}, and pinned to {self.pin}")
            saved = call.saved
            changes = require_no_drift(saved, described.description, where=url) if saved else ()
            return _result(url, described, changes, self.save)

    def _service_call(self, saved: str | None) -> ServiceCall:
        return ServiceCall(service=self.service, pesto_conn_id=self.pesto_conn_id, saved=saved)


def _result(
    url: str, described: Described, changes: tuple[str, ...], folder: str | None
) -> dict[str, JsonValue]:
    description = described.description
    result: dict[str, JsonValue] = {
        "name": description.name,
        "version": description.version,
        "url": url,
        "digest": described.digest,
        "changes": list(changes),
    }
    if folder is None:
        return {**result, "description": description.to_json()}
    from pesto_runtime.run.services import save_description

    path = save_description(Path(folder), url, description, described.transports)
    return {**result, "saved": str(path)}
