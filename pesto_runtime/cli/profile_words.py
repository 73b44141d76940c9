"""Read `-p P1 P2` as PESTO documents it: further profiles may follow the first one as words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.parser import _OptionParser, _ParsingState


class ProfiledCommand(TyperCommand):
    """A command with `-p`; once its target is given, all words after `-p` are profiles."""

    def make_parser(self, ctx: Context) -> _OptionParser:
        """Create the parser, of which the option `-p` takes further words."""
        parser = super().make_parser(ctx)
        option = parser._short_opt["-p"]  # click has no public way to do this
        process = option.process

        def taking_words(value: str, state: _ParsingState) -> None:
            process(value, state)
            while state.largs and state.rargs and not state.rargs[0].startswith("-"):
                process(state.rargs.pop(0), state)

        option.process = taking_words  # type: ignore[method-assign]  # of this parser alone
        return parser
