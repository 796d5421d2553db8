"""Miniature models of every family, and the conformance kit that every method's tests run."""
