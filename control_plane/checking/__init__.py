"""Compose files are judged here, away from the event loop: in threads, or in processes of their own.

Operations call `Checker.check`; `core.compose` does the judging.
"""
