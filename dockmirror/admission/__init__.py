"""Admission: may this digest be served now, another in its place, or none."""
