"""``cutline families``: the list of model families."""

from __future__ import annotations


def families() -> None:
    """List the model families that can be opened. Some only embed images and texts; docs/families.md says which."""
    from cutline import families
    from cutline.cli.terminal import say

    broken = families.PLUGINS.broken()
    print("\n".join(name for name in families.names() if name not in broken))
    for problem in broken.values():
        say(f"warning: {problem}")
