"""Tests of dockmirror between real clients and real registries, on the loopback interface only."""
