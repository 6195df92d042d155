"""Changes made by a program of the platform, to a kernel attribute, or to the metadata server."""

from __future__ import annotations

from typing import ClassVar

from google_guest.changes import Change
from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.system import System


@record
class RunCommand(Change):
    """Run a program of the platform; ``purpose`` says in the imperative what for."""

    argv: tuple[str, ...]
    purpose: str
    timeout: float = 60.0
    about: str = ""

    @property
    def subject(self) -> str:
        """What the feature says that it is about, or the purpose."""
        return self.about or self.purpose

    def describe(self) -> str:
        """Return the purpose and the command."""
        return f"{self.purpose} ({' '.join(self.argv)})"

    def apply(self, system: System) -> None:
        """Run the program; any status but 0 is a failure."""
        system.run(self.argv, timeout=self.timeout)


@record
class WriteKernelValue(Change):
    """Write one attribute below /sys or /proc."""

    path: str
    value: str
    previous: str = ""

    @property
    def subject(self) -> str:
        """The attribute."""
        return f"kernel value {self.path}"

    def describe(self) -> str:
        """Return the attribute and its new value."""
        return f"set {self.path} to {self.value}"

    def diff(self) -> tuple[str, ...]:
        """Return the old and the new value."""
        old = (f"-{self.previous}",) if self.previous else ()
        return (*old, f"+{self.value}")

    def apply(self, system: System) -> None:
        """Write the value."""
        system.files.write_value(self.path, self.value)


@record
class PublishGuestAttribute(Change):
    """Write one guest attribute through the metadata server."""

    needs_live_system: ClassVar[bool] = False

    namespace: str
    key: str
    value: str = field(repr=False)
    about: str = ""

    @property
    def subject(self) -> str:
        """What the feature says that it is about, or the attribute."""
        return self.about or f"guest attribute {self.namespace}/{self.key}"

    def describe(self) -> str:
        """Return the attribute's path; its value is public but long."""
        return f"publish guest attribute {self.namespace}/{self.key}"

    def apply(self, system: System) -> None:
        """Send the value.

        Raises:
            GuestError: the metadata server refused it or could not be reached.
        """
        if system.channel is None:
            raise GuestError("guest attributes need a metadata server, and none is connected")
        system.channel.put_guest_attribute(self.namespace, self.key, self.value)
