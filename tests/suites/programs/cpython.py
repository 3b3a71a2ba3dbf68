#!/usr/bin/env python3
"""Compares two runs of CPython's tests, case by case, with the list of what is known to differ.

    cpython.py HOST.xml POOL.xml LISTED

A case that fails on the pool, or is skipped there although it ran on the host's file system, must be
listed. One that is listed and was passed on the pool must not be.
"""

import sys
import xml.etree.ElementTree as tree

RANK = {"passed": 0, "skipped": 1, "failed": 2}


def outcomes(path):
    """Each case with its outcome; the worst one if there are several of one name."""
    found = {}
    for case in tree.parse(path).iter("testcase"):
        marks = {mark.tag for mark in case}
        outcome = "failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"
        name = case.get("name").removeprefix("test.")
        found[name] = max(found.get(name, "passed"), outcome, key=RANK.get)
    return found


def main(host_path, pool_path, list_path):
    host, pool = outcomes(host_path), outcomes(pool_path)
    with open(list_path, encoding="ascii") as lines:
        listed = {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}
    wrong = []
    for name in sorted(host.keys() | pool.keys()):
        there, here = pool.get(name, "missing"), host.get(name, "missing")
        as_it_should = there == "passed" or (there == "skipped" and here == "skipped")
        if not as_it_should and name not in listed:
            wrong.append(f"{name}: {there} on the pool, {here} on the host")
        if there == "passed" and name in listed:
            wrong.append(f"{name}: passed, take it off the list")
    for line in wrong:
        print(line)
    counts = {outcome: sum(found == outcome for found in pool.values()) for outcome in RANK}
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if wrong or counts["passed"] == 0 else 0


sys.exit(main(*sys.argv[1:]))
