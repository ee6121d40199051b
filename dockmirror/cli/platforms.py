"""Platforms as they are written on a command line."""

from __future__ import annotations

import click

from ..oci.platform import Platform


class PlatformType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``linux/amd64``, ``linux/arm/v7``."""

    name = "os/arch[/variant]"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> Platform:
        """See ``ParamType``."""
        try:
            return Platform.parse(value)
        except ValueError as error:
            self.fail(str(error), param, context)


platforms_option = click.option(
    "--platform", "platforms", type=PlatformType(), multiple=True,
    help="Of an image for several platforms only this one; repeatable.",
)  # fmt: skip
