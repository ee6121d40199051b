"""The mirror's own certificates, for those who reach it by https."""
