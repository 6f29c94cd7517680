"""Job files: YAML or JSON text as a `JobSpec`, and back.

No field is known by its name here: keys, types and names of values come from the descriptors of the contract.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nablad.errors import InvalidRequestError, Violation, mistakes
from nablad.jobspec.check import check
from nablad.jobspec.fields import constraint_of, fields_of
from nablad.jobspec.names import closest, one_of, shown
from nablad.jobspec.text import Block, Scalar, TextError, Value, read_scalar, read_tree, write_scalar
from nablad.jobspec.violations import sort
from nablad.v1.job_spec_pb2 import JobSpec

__all__ = ["MAXIMUM_BYTES", "load", "parse", "to_yaml"]

MAXIMUM_BYTES = 2**20
"""Largest job file, in bytes; a longer one is refused before it is parsed."""


def load(path: str | Path) -> JobSpec:
    """Reads a job file and checks it.

    Returns:
        The spec as its author wrote it; the service completes it.

    Raises:
        InvalidRequestError: It has mistakes; the message and ``violations`` name all that can be found without the
            service, which also knows its data sets, models and jobs.
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        spec, unread = parse(file.read(MAXIMUM_BYTES + 1))
    found = check(spec, unread=unread).violations
    if found:
        raise InvalidRequestError(mistakes(found), found)
    return spec


def parse(content: str | bytes) -> tuple[JobSpec, list[Violation]]:
    """Parses a job file, given as text or as its bytes.

    Returns:
        The spec as far as it could be read, and everything that could not, in the order of the contract's fields. A
        list of scalars with a mistake in it is left out as a whole, so that no element moves to another's place.
        Allowed values are not checked here: see `check`.
    """
    spec = JobSpec()
    if len(content) > MAXIMUM_BYTES:
        return spec, [_too_long()]
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return spec, [Violation("", f"a job file is text in UTF-8; byte {error.start} of this one is not")]
    if len(text.encode(errors="replace")) > MAXIMUM_BYTES:
        return spec, [_too_long()]
    try:
        tree = read_tree(text)
    except TextError as error:
        return spec, [Violation("", str(error))]
    if not isinstance(tree, Block):
        keys = ", ".join(JobSpec.DESCRIPTOR.fields_by_name)
        return spec, [Violation("", f"a job file is a mapping with the keys {keys}; got {_what(tree)}")]
    unread: list[Violation] = []
    _Reader(spec, "", unread).read(tree)
    return spec, sort(unread)


def to_yaml(spec: JobSpec) -> str:
    """Writes a job file that `parse` reads as an equal spec. Fields that were left out stay out."""
    return yaml.safe_dump(_plain(spec), sort_keys=False, default_flow_style=None, width=120)


def _too_long() -> Violation:
    return Violation("", f"a job file has at most {MAXIMUM_BYTES} bytes; this one has more")


def _what(tree: Value) -> str:
    return "nothing" if tree is None else shown(tree)


class _Reader:
    """Reader: reads one mapping of a job file into a message, and collects what is wrong with it."""

    def __init__(self, message: Message, path: str, violations: list[Violation]) -> None:
        self._message = message
        self._path = path
        self._violations = violations
        self._keys = _keys(fields_of(message))
        self._given: dict[str, str] = {}  # the key that each field was given by

    def read(self, block: Block) -> None:
        """Reads the known keys first, then those that may be misspelt."""
        for key, value in block.entries:
            if key in self._keys:
                self._entry(key, value)
        for key, value in block.entries:
            if key not in self._keys:
                self._unknown(key, value)

    def _entry(self, key: str, value: Value) -> None:
        """Reads the value of a key, once for each field."""
        field = self._keys[key]
        path = _inside(self._path, field.name)
        if field.name in self._given:
            self._refuse(path, f"given twice, as {self._given[field.name]} and as {key}; give it once")
            return
        self._given[field.name] = key
        if value is None:
            return
        if field.is_repeated:
            self._list(field, value if isinstance(value, list) else [value], path)
        elif field.message_type is not None:
            self._part(field, value, path)
        else:
            self._scalar(field, value, path)

    def _unknown(self, key: str, value: Value) -> None:
        """Reports an unknown key; its value is read for the key that was probably meant, which is then not missing."""
        meant = closest(key, self._keys)
        words = one_of(self._message.DESCRIPTOR.fields_by_name, meant or _nearest(key, self._path))
        self._refuse(_inside(self._path, _label(key)), f"there is no such key; {words}")
        if meant is not None and self._keys[meant].name not in self._given:
            self._entry(meant, value)

    def _part(self, field: FieldDescriptor, value: Value, path: str) -> None:
        """Reads the message of a field: a mapping, or the one value that stands for it."""
        message: Message = getattr(self._message, field.name)
        shorthand = constraint_of(field).shorthand
        if isinstance(value, Block | list) or not shorthand:
            self._block(message, value, path)
            return
        message.SetInParent()
        _Reader(message, path, self._violations)._entry(shorthand, value)

    def _block(self, message: Message, value: Value, path: str) -> None:
        if isinstance(value, Block):
            message.SetInParent()
            _Reader(message, path, self._violations).read(value)
        else:
            keys = ", ".join(message.DESCRIPTOR.fields_by_name)
            self._refuse(path, f"got {shown(value)}; allowed: a mapping with the keys {keys}")

    def _list(self, field: FieldDescriptor, values: list[Value], path: str) -> None:
        """Reads a list; of one that is too long, nothing."""
        most = constraint_of(field).maximum_items
        if most and len(values) > most:
            self._refuse(path, f"got {len(values)} elements; allowed: at most {most}")
        elif field.message_type is None:
            self._scalars(field, values, path)
        else:
            for index, value in enumerate(values):
                self._block(getattr(self._message, field.name).add(), value, f"{path}[{index}]")

    def _scalars(self, field: FieldDescriptor, values: list[Value], path: str) -> None:
        elements = [self._value(field, value, f"{path}[{index}]") for index, value in enumerate(values)]
        if None not in elements:
            getattr(self._message, field.name).extend(elements)

    def _scalar(self, field: FieldDescriptor, value: Value, path: str) -> None:
        element = self._value(field, value, path)
        if element is not None:
            setattr(self._message, field.name, element)

    def _value(self, field: FieldDescriptor, value: Value, path: str) -> Scalar | None:
        try:
            return read_scalar(field, value)
        except ValueError as error:
            self._refuse(path, str(error))
            return None

    def _refuse(self, path: str, message: str) -> None:
        self._violations.append(Violation(path, message))


def _keys(fields: Sequence[FieldDescriptor]) -> dict[str, FieldDescriptor]:
    """Returns the fields of a message by the keys that job files may use for them."""
    aliases = {constraint_of(field).alias: field for field in fields if constraint_of(field).alias}
    return {field.name: field for field in fields} | aliases


def _paths(fields: Sequence[FieldDescriptor], path: str = "") -> Iterator[tuple[str, str]]:
    """Yields every key outside lists, with the path of its field."""
    for key, field in _keys(fields).items():
        inner = _inside(path, field.name)
        yield key, inner
        if field.message_type is not None and not field.is_repeated:
            yield from _paths(field.message_type.fields, inner)


def _nearest(key: str, path: str) -> str | None:
    """Returns the path of a field that has this key elsewhere: below ``path`` if possible, the shortest first."""
    fields = [field for other, field in _PATHS if other == key]
    return min(fields, key=lambda field: (not field.startswith(f"{path}."), field.count(".")), default=None)


def _inside(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _label(key: str) -> str:
    """Returns an unknown key as a step of a field path: in quotes if it is not a plain word."""
    return key if key.isascii() and key.isidentifier() and len(key) < 64 else shown(key)


def _plain(message: Message) -> dict[str, Any]:
    """Returns the given fields of a message as a mapping of a job file."""
    return {field.name: _plain_field(field, value) for field, value in message.ListFields()}


def _plain_field(field: FieldDescriptor, value: Any) -> Any:
    if (shorthand := constraint_of(field).shorthand) and [inner.name for inner, _ in value.ListFields()] == [shorthand]:
        return _plain(value)[shorthand]
    one = _plain if field.message_type is not None else partial(write_scalar, field)
    return [one(element) for element in value] if field.is_repeated else one(value)


_PATHS = tuple(_paths(fields_of(JobSpec())))
