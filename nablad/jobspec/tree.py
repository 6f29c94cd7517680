"""YAML or JSON text as a tree of plain values, in which every scalar is the text that was written.

What a scalar means is decided by the field that it is read into, not by YAML's guesses: ``1e-3`` is a number for a
learning rate, ``2024`` and ``no`` are names for a job.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import yaml

__all__ = ["Block", "TextError", "Value", "read_tree"]

_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Block:
    """A mapping as it was written: keys in their order, a key that stands twice twice."""

    entries: "list[tuple[str, Value]]"


Value: TypeAlias = "bool | str | list[Value] | Block | None"
"""A node of the tree. Only JSON gives bool: in YAML ``true`` is a scalar like any other."""


class TextError(Exception):
    """The text is neither YAML nor JSON; the message says where it stops being so."""


def read_tree(text: str) -> Value:
    """The tree of one YAML document, or one JSON value.

    Raises:
        TextError: The text is malformed, nested too deeply, or uses tags or aliases.
    """
    try:
        return _read_json(text) if text.lstrip().startswith("{") else _read_yaml(text)
    except RecursionError:
        raise TextError("the text is nested too deeply; a job file has at most four levels") from None


def _read_json(text: str) -> Value:
    """JSON that YAML does not know (tabs between its parts), and else YAML, which may start with a brace too."""
    try:
        tree: Value = json.loads(text, object_pairs_hook=Block, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError:
        return _read_yaml(text)
    return tree


def _read_yaml(text: str) -> Value:
    try:
        tree: Value = yaml.load(text, Loader=_Loader)  # noqa: S506 -- a SafeLoader with fewer types
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TextError(_located(str(error.problem or error.context), mark)) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        where = f"line {len(before)}, column {len(before[-1]) + 1}"
        raise TextError(f"not valid YAML in {where}: the character {error.character:#x}") from None
    except (ValueError, OverflowError) as error:
        # PyYAML lets these through from numbers in escapes and directives that are out of range.
        raise TextError(f"not valid YAML: {error}") from None
    return tree


def _located(problem: str, mark: yaml.Mark | None) -> str:
    where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    return f"not valid YAML{where}: {problem}"


class _Loader(yaml.SafeLoader):
    """A SafeLoader that knows null, text, lists and mappings, and no aliases: the tree is as small as its text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- PyYAML's own form of it
        first: [(tag, regexp) for tag, regexp in resolvers if tag == _NULL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call] # the stubs of PyYAML lack its type
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not known here; write it out", mark)
        return super().compose_node(parent, index)

    def text(self, node: yaml.ScalarNode) -> str:
        return str(self.construct_scalar(node))

    def null(self, _node: yaml.Node) -> None:
        return None

    def sequence(self, node: yaml.SequenceNode) -> list[Value]:
        return [self.construct_object(item, deep=True) for item in node.value]

    def mapping(self, node: yaml.MappingNode) -> Block:
        return Block([(self.key(key), self.construct_object(value, deep=True)) for key, value in node.value])

    def key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        raise yaml.constructor.ConstructorError(None, None, "a key has to be a word", node.start_mark)

    def unknown(self, node: yaml.Node) -> None:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        problem = f"the tag {tag} is not known here; leave it out"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.text)
_Loader.add_constructor(_NULL, _Loader.null)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor(None, _Loader.unknown)
