"""Groups of whatever is joined, directly or through others."""

from __future__ import annotations

from collections.abc import Iterable


class Groups:
    """Disjoint sets of strings, each named by its smallest member, whatever the order in which they were joined."""

    def __init__(self, members: Iterable[str]) -> None:
        self._parents = {member: member for member in members}

    def of(self, member: str) -> str:
        """The name of the group."""
        parents = self._parents
        while (parent := parents[member]) != member:
            parents[member] = parents[parent]  # so that the way is half as long the next time
            member = parent
        return member

    def join(self, one: str, other: str) -> None:
        """Make two groups one."""
        low, high = sorted((self.of(one), self.of(other)))
        self._parents[high] = low

    def names(self) -> dict[str, str]:
        """Each member's group."""
        return {member: self.of(member) for member in self._parents}
