"""Parse the JavaScript and the JQ of workflow definitions; nothing is executed.

Tree-sitter parses JavaScript, jq its own expressions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node, Parser


def parse_fault(text: str, language: str) -> str | None:
    """Return why a script does not parse; None if it does.

    Args:
        text: The script.
        language: `javascript` or `jq`.

    Raises:
        InvalidInput: the extra is missing.
    """
    if language == "jq":
        try:
            import jq
        except ImportError as error:
            raise _missing() from error
        try:
            jq.compile(text)
        except ValueError as error:
            return f"is not JQ: {str(error).splitlines()[0].removeprefix('jq: error: ')}"
        return None
    root = _root(text)
    if not root.has_error:
        return None
    place = next((each for each in _below(root) if each.is_error or each.is_missing), root)
    line, column = place.start_point
    return f"is not JavaScript: syntax error in line {line + 1}, column {column + 1}"


def read_names(text: str) -> list[str]:
    """Return the names x of all `$.x` and `$['x']` of a script, each once.

    >>> read_names("$.cover > $['limit'] ? 'cloudy' : 'clear'")
    ['cover', 'limit']
    """
    found: dict[str, None] = {}
    for node in _below(_root(text)):
        owner = node.child_by_field_name("object")
        if owner is None or _text(owner) != "$":
            continue
        name = node.child_by_field_name("property") or node.child_by_field_name("index")
        if name is not None and name.type in ("property_identifier", "string"):
            found[_text(name).strip("'\"")] = None
    return list(found)


def literal_results(text: str) -> frozenset[str] | None:
    """Return all results of a script whose results are texts; None for any other script.

    >>> sorted(literal_results("$.cover > 0.5 ? 'cloudy' : 'clear'"))
    ['clear', 'cloudy']
    """
    root = _root(text)
    statements = root.named_children
    if len(statements) != 1 or statements[0].type != "expression_statement":
        return None
    found = list(_results(statements[0].named_children[0]))
    return None if None in found else frozenset(each for each in found if each is not None)


def _results(node: Node) -> Iterator[str | None]:
    if node.type == "ternary_expression":
        for name in ("consequence", "alternative"):
            branch = node.child_by_field_name(name)
            if branch is not None:
                yield from _results(branch)
    elif node.type == "parenthesized_expression":
        yield from _results(node.named_children[0])
    else:
        yield _text(node)[1:-1] if node.type == "string" else None


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _below(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _root(text: str) -> Node:
    return _parser().parse(text.encode()).root_node


@cache
def _parser() -> Parser:
    try:
        import tree_sitter_javascript
        from tree_sitter import Language, Parser
    except ImportError as error:
        raise _missing() from error
    return Parser(Language(tree_sitter_javascript.language()))


def _missing() -> InvalidInput:
    return InvalidInput(
        "scripts of workflows are checked by tree-sitter and jq: "
        "pip install 'pesto-workflows[conductor]'"
    )
