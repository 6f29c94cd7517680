"""Text of a job file: YAML or JSON as a tree of scalars, and a scalar as the value of a field.

The tree keeps every scalar as the text that was written, because the field that it is read into decides what it means,
not YAML's guesses: ``1e-3`` is a number for a learning rate, ``2024`` and ``no`` are names for a job.
"""

import json
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, TypeAlias

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nablad.jobspec.fields import INTEGERS, allowed, constraint_of, kind_of, value_range
from nablad.jobspec.names import name_of, shown, value_of

__all__ = ["Block", "Scalar", "TextError", "Value", "read_scalar", "read_tree", "set_default", "write_scalar"]

_NULL = "tag:yaml.org,2002:null"
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_AUTO = ("nablad.v1.ModelSpec.layers", "auto")  # the field whose 0 has a word, and the word

Scalar: TypeAlias = bool | int | float | str
"""The value of a field that is neither a list nor a message."""


@dataclass(frozen=True)
class Block:
    """A mapping as it was written: keys in their order, a repeated key as often as it was written."""

    entries: "list[tuple[str, Value]]"


Value: TypeAlias = "bool | str | list[Value] | Block | None"
"""A node of the tree. Only JSON has bool: in YAML ``true`` is a scalar like any other."""


class TextError(Exception):
    """The text is neither YAML nor JSON; the message names the line and column of the first mistake."""


def read_tree(text: str) -> Value:
    """Reads one YAML document, or one JSON value, as a tree.

    Raises:
        TextError: The text is malformed, nested too deeply, or uses tags or aliases.
    """
    try:
        return _read_json(text) if text.lstrip().startswith("{") else _read_yaml(text)
    except RecursionError:
        raise TextError("the text is nested too deeply; a job file has at most four levels") from None


def _read_json(text: str) -> Value:
    """Reads JSON, because YAML forbids JSON's tabs; else YAML, which may start with a brace too."""
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
        # PyYAML does not wrap these: numbers out of range in escapes and directives.
        raise TextError(f"not valid YAML: {error}") from None
    return tree


def _located(problem: str, mark: yaml.Mark | None) -> str:
    where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    return f"not valid YAML{where}: {problem}"


class _Loader(yaml.SafeLoader):
    """A SafeLoader of null, text, lists and mappings. Without aliases, a tree is never much larger than its text."""

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


def read_scalar(field: FieldDescriptor, value: Value) -> Scalar:
    """Returns the value of a field for a scalar of a job file.

    Raises:
        ValueError: The field cannot hold it; the message says what was given and what is allowed.
    """
    if (field.full_name, value) == _AUTO:
        return 0
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str):
        raise _wrong_kind(field, value)
    if field.enum_type is not None:
        return value_of(field.enum_type, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(field, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(field, value)
    return _integer(field, value) if field.cpp_type in INTEGERS else _real(field, value)


def write_scalar(field: FieldDescriptor, value: Scalar) -> Scalar:
    """Returns the scalar of a job file for the value of a field: the opposite of `read_scalar`."""
    if value == 0 and field.full_name == _AUTO[0]:
        return _AUTO[1]
    return value if field.enum_type is None else name_of(field.enum_type, int(value))


def set_default(message: Message, field: FieldDescriptor) -> None:
    """Sets a field to the default that the contract declares for it, if any."""
    default = constraint_of(field).default
    if not default:
        return
    if field.is_repeated:
        getattr(message, field.name).append(read_scalar(field, default))
    else:
        setattr(message, field.name, read_scalar(field, default))


def _text(field: FieldDescriptor, text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _wrong_kind(field, text)  # half a surrogate pair: no message can hold it
    return text


def _bool(field: FieldDescriptor, text: str) -> bool:
    if text.lower() not in _BOOLS:
        raise _wrong_kind(field, text)
    return _BOOLS[text.lower()]


def _integer(field: FieldDescriptor, text: str) -> int:
    number = _decimal(field, text)
    least, most = INTEGERS[field.cpp_type]
    # The range first, because 1e999999999 as an integer would take all memory.
    if not least <= number <= most:
        raise ValueError(f"got {shown(text)}; {allowed(field)}")
    if number != number.to_integral_value():
        raise _wrong_kind(field, text)
    return int(number)


def _real(field: FieldDescriptor, text: str) -> float:
    number = float(_decimal(field, text))
    if not math.isfinite(number):
        raise _wrong_kind(field, text)
    return number


def _decimal(field: FieldDescriptor, text: str) -> Decimal:
    """Returns the exact finite number for any usual spelling: 100, 1_000, 3.0, 1e-3."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _wrong_kind(field, text) from None
    if not number.is_finite():
        raise _wrong_kind(field, text)
    return number


def _wrong_kind(field: FieldDescriptor, value: Value) -> ValueError:
    """Returns the error for a value of another kind than the field's."""
    numeric = value_range(field)
    words = f"allowed: {kind_of(field)}, {numeric}" if numeric else allowed(field)
    return ValueError(f"got {shown(value)}; {words}")
