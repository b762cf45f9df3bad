"""``cutline families``: the list of model families."""

from __future__ import annotations


def families() -> None:
    """List the model families that can be opened. Some only embed images and texts; docs/families.md says which."""
    from cutline import families

    print("\n".join(families.names()))
