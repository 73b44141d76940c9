"""Ask a service what it is: keep it, or hold it to what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

    from pesto_runtime.client.describing import Described


class PestoDiscoverOperator(BaseOperator):
    """Ask a service for its description; a pinned one must not have changed in a way that breaks.

    The task's result is `name`, `version`, `url`, `digest`, `changes` since the pin in words, and
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
        **arguments: object,
    ) -> None:
        """Name a service.

        Args:
            service: As of `PestoProcessOperator`.
            pesto_conn_id: As of `PestoProcessOperator`.
            save: Folder to write `NAME@VERSION.json` to, as `pesto discover --save` does.
            pin: A saved description: breaking changes since fail the task, each by name. Or a
                digest, `sha256:…`: any change does.
            arguments: Of every operator.
        """
        super().__init__(**arguments)  # type: ignore[arg-type]  # Airflow judges them
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.save = None if save is None else str(save)
        self.pin = None if pin is None else str(pin)
        if self.retry_policy is None:
            self.retry_policy = PestoRetryPolicy()

    def service_url(self) -> str:
        """Address of the service, up to and with `/api/v1`."""
        return self._calling(None).url

    def execute(self, context: Context) -> dict[str, JsonValue]:  # noqa: ARG002  # nothing of the run matters
        """Ask, compare, save.

        Raises:
            PestoTaskFailed: the service drifted from its pin, or what it says is no description.
            PestoTryAgain: it is not there.
        """
        with native_errors():
            is_digest = self.pin is not None and self.pin.startswith("sha256:")
            calling = self._calling(None if is_digest else self.pin)
            with calling.client() as client:
                url, described = client.url, client.described
            if is_digest and self.pin != described.digest:
                raise InvalidContract(f"{url} is {described.digest}, and pinned to {self.pin}")
            saved = calling.saved
            changes = require_no_drift(saved, described.description, where=url) if saved else ()
            return _told(url, described, changes, self.save)

    def _calling(self, saved: str | None) -> ServiceCall:
        return ServiceCall(service=self.service, pesto_conn_id=self.pesto_conn_id, saved=saved)


def _told(
    url: str, described: Described, changes: tuple[str, ...], folder: str | None
) -> dict[str, JsonValue]:
    description = described.description
    told: dict[str, JsonValue] = {
        "name": description.name,
        "version": description.version,
        "url": url,
        "digest": described.digest,
        "changes": list(changes),
    }
    if folder is None:
        return {**told, "description": description.to_json()}
    from pesto_runtime.run.services import save_description

    path = save_description(Path(folder), url, description, described.transports)
    return {**told, "saved": str(path)}
