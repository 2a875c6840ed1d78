"""The wheel carries params/, notebooks/ and zoo/ as pdstudy/share/; an editable install reads them in the checkout."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shared(BuildHookInterface):
    """Adds the folders that a checkout has beside the package."""

    def initialize(self, version, build_data):
        """Add them to the wheel, folder by folder; an editable install would get a second copy."""
        if version != "editable":
            build_data["force_include"] |= {name: f"pdstudy/share/{name}" for name in ("params", "notebooks", "zoo")}
