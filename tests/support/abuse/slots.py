"""Every field of every request, wherever it stands: the one walk over the contract's descriptors.

A new field, or a new RPC, is found without anyone remembering it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2

DEEPEST = 4
"""Messages inside messages: none of the contract's holds itself."""

_ID_ENDINGS = ("_id", "_ids", "queue", "queues", "token", "tokens")
_MASK = "update_mask"


@dataclass(frozen=True)
class Slot:
    """A field somewhere in a request, with the fields that lead to it."""

    path: tuple[FieldDescriptor, ...]
    place: int = 0
    """Of which item of the lists that lead to it."""

    @property
    def field(self) -> FieldDescriptor:
        return self.path[-1]

    @property
    def name(self) -> str:
        """As the errors write it: `jobs[0].queue`."""
        above = [
            f"{field.name}[{self.place}]" if field.is_repeated else field.name
            for field in self.path[:-1]
        ]
        return ".".join([*above, self.field.name])

    @property
    def rules(self) -> Any:
        """What the contract demands of the field."""
        return self.field.GetOptions().Extensions[validate_pb2.field]

    @property
    def is_optional(self) -> bool:
        """Whether the rules let it be empty."""
        return bool(self.rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE)

    @property
    def names_a_thing(self) -> bool:
        """Whether the field names a thing, by its rules or by its name."""
        is_text = self.field.type == FieldDescriptor.TYPE_STRING
        return is_text and (self.rules.string.uuid or self.field.name.endswith(_ID_ENDINGS))

    def places(self) -> Iterator["Slot"]:
        """The slot, and below a list that of a second item too."""
        yield self
        if any(field.is_repeated for field in self.path[:-1]):
            yield replace(self, place=1)

    def filled(self, request: Message, value: Any) -> Message:
        """The request with this value; an update's mask names the field, where it may."""
        made = type(request)()
        made.CopyFrom(request)
        self._name_in_mask(made)
        self.put(made, value)
        return made

    def put(self, request: Message, value: Any) -> None:
        """Set the field; what leads to it is made where the request has it not."""
        parent: Any = request
        for field in self.path[:-1]:
            inner = getattr(parent, field.name)
            if field.is_repeated:
                while len(inner) <= self.place:
                    inner.add().CopyFrom(inner[0])
                inner = inner[self.place]
            else:
                inner.SetInParent()
            parent = inner
        _assign(parent, self.field, value)

    def get(self, request: Message) -> Any:
        """What stands there; nothing is made."""
        parent: Any = request
        for field in self.path[:-1]:
            parent = getattr(parent, field.name)
            if field.is_repeated:
                if not parent:
                    return None
                parent = parent[self.place]
        return getattr(parent, self.field.name)

    def _name_in_mask(self, request: Any) -> None:
        is_changed = len(self.path) > 1 or not self.names_a_thing
        has_mask = _MASK in request.DESCRIPTOR.fields_by_name
        if has_mask and is_changed and self.path[0].name != _MASK:
            request.update_mask.paths[:] = [self.name]


def slots(descriptor: Descriptor, above: tuple[FieldDescriptor, ...] = ()) -> Iterator[Slot]:
    """Every field below a message."""
    for field in descriptor.fields:
        yield Slot((*above, field))
        inner = field.message_type
        if inner is None or is_time(inner) or is_map(field):
            continue
        if len(above) < DEEPEST:
            yield from slots(inner, (*above, field))


def is_time(message: Descriptor) -> bool:
    return message.full_name in {"google.protobuf.Duration", "google.protobuf.Timestamp"}


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _assign(parent: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        parent.ClearField(field.name)
        target = getattr(parent, field.name)
        if is_map(field):
            target.update(value)
        else:
            target.extend(value)
    elif field.message_type is not None:
        getattr(parent, field.name).CopyFrom(value)
        # An empty message is there all the same.
        getattr(parent, field.name).SetInParent()
    else:
        setattr(parent, field.name, value)
