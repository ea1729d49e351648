"""Fuzzing: seeded generators of broken pictures, weights, folders, downloads and kills, and what s2flib promises.

A kind is a module with ``case(seed)``, the same for the same seed, and ``check(seed, folder)``: None, or a sentence
that says which promise was broken. ``test_fuzz.py`` tries a few of each kind, ``make fuzz`` thousands of them.
"""
