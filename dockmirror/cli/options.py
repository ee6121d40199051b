"""Options that several commands have."""

from __future__ import annotations

import click

from ..oci.manifest import Platform

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class PlatformType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A platform, such as ``linux/amd64`` or ``linux/arm/v7``."""

    name = "os/arch[/variant]"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> Platform:
        try:
            return Platform.parse(value)
        except ValueError as error:
            self.fail(str(error), param, context)


platforms_option = click.option(
    "--platform", "platforms", type=PlatformType(), multiple=True,
    help="Only this platform of a multi-platform image; repeatable.",
)  # fmt: skip
