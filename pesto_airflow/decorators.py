"""Define `@task.pesto`: a function returns the inputs of a call, whose outputs are the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.bases.decorator import DecoratedOperator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions.context import context_merge

from pesto_airflow.errors import PestoTaskFailed
from pesto_airflow.operators.process import PestoProcessOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class PestoDecoratedOperator(DecoratedOperator, PestoProcessOperator):
    """A `PestoProcessOperator` whose inputs a function returns, on the worker, for every try."""

    # Without `inputs`: the function returns data, so `{{` in it must not be rendered as a template.
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        "out",
        "service",
        "pesto_conn_id",
    )
    template_fields_renderers = {  # noqa: RUF012  # as Airflow defines it
        **DecoratedOperator.template_fields_renderers,
        "out": "json",
    }
    custom_operator_name = "@task.pesto"

    def __init__(self, *, python_callable: Callable[..., object], **arguments: object) -> None:
        """Wrap the function; other arguments are those of `PestoProcessOperator`."""
        super().__init__(python_callable=python_callable, inputs={}, **arguments)  # type: ignore[arg-type]  # Airflow checks them
        self._has_inputs = False

    def inputs_for(self, context: Context) -> Mapping[str, object]:
        """Call the function, once per process, and return the inputs.

        Raises:
            PestoTaskFailed: it did not return a dict.
        """
        # Submission, reconnection and a second submission need the same inputs: with other inputs,
        # the key would be another one, and the service would start a second job.
        if not self._has_inputs:
            context_merge(context, self.op_kwargs)
            arguments = determine_kwargs(self.python_callable, self.op_args, context)
            inputs = self.python_callable(*self.op_args, **arguments)
            if not isinstance(inputs, dict):
                raise PestoTaskFailed(
                    f"{self.task_id} must return a dict of input name -> value, not {inputs!r:.60}"
                )
            self.inputs, self._has_inputs = inputs, True
        return self.inputs


def pesto_task(
    python_callable: Callable[..., object] | None = None, **arguments: object
) -> TaskDecorator:
    """Turn a function into a call of a service: `@task.pesto(service=…, out=…)`."""
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=PestoDecoratedOperator,
        **arguments,  # type: ignore[arg-type]  # Airflow checks them
    )
