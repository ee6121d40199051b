"""The mirror's own TLS certificates, from files or from an ACME authority."""
