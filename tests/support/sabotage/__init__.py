"""Servers with one guard taken out, a module each: they show that the tests of that guard can fail.

Each module has one function, `apply`, which patches the program before it starts. Used by tests marked `control`.
"""
