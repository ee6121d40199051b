"""The ``dockmirror`` command."""
