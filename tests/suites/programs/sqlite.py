#!/usr/bin/env python3
"""A writer of SQLite transactions and the judge of what is left of them.

    sqlite.py create DATABASE MODE
    sqlite.py write DATABASE MODE WRITER LOG     until something fails; LOG gets each committed number
    sqlite.py check DATABASE WRITER=LOG...

What transaction N of a writer changes follows from the two numbers, so the rows that must be there
follow from how far the writer came: as far as logged, or one further, as the commit comes first.
"""

import hashlib
import os
import sqlite3
import sys
import time

# A transaction takes back the one so many before it, unless that is a third one.
AGE = 40


def digest(*values):
    return hashlib.blake2b(repr(values).encode(), digest_size=32).digest()


def rows_of(writer, number):
    """The rows that a transaction inserts."""
    rows = []
    for part in range(1 + digest(writer, number)[0] % 12):
        seed = digest(writer, number, part)
        size = 60000 if seed[1] == 7 else 10 + seed[1] * 12
        rows.append((writer, number, part, (seed * (size // 32 + 1))[:size]))
    return rows


def takes_back(number):
    """The transaction whose rows this one deletes, or 0."""
    old = number - AGE
    return old if old > 0 and old % 3 != 0 else 0


def is_there(number, last):
    return not (number + AGE <= last and takes_back(number + AGE) == number)


def connect(path, mode):
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    found = database.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    assert found == mode, f"journal_mode is {found}, not {mode}"
    # Deleting the journal is what commits in this mode, and FULL does not sync the directory.
    database.execute(f"PRAGMA synchronous={'EXTRA' if mode == 'delete' else 'FULL'}")
    database.execute("PRAGMA wal_autocheckpoint=200")
    # Small, so that pages are written before the commit, and read again.
    database.execute("PRAGMA cache_size=40")
    database.execute("CREATE TABLE IF NOT EXISTS last (writer PRIMARY KEY, number)")
    columns = "writer, number, part, payload, PRIMARY KEY (writer, number, part)"
    database.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
    database.execute("CREATE INDEX IF NOT EXISTS payloads ON rows (payload)")
    return database


def last_of(database, writer):
    row = database.execute("SELECT number FROM last WHERE writer = ?", (writer,)).fetchone()
    return row[0] if row else 0


def write(path, mode, writer, log):
    database = connect(path, mode)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = last_of(database, writer)
    while True:
        number += 1
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows_of(writer, number))
        old = (writer, takes_back(number))
        database.execute("DELETE FROM rows WHERE writer = ? AND number = ?", old)
        database.execute("INSERT OR REPLACE INTO last VALUES (?, ?)", (writer, number))
        database.execute("COMMIT")
        os.write(out, b"%d\n" % number)
        # SQLite's waiters look every 100 ms at most; without a gap one writer may keep all others out.
        time.sleep(0.004)


def check(path, logs):
    database = sqlite3.connect(path, timeout=60)
    sound = database.execute("PRAGMA integrity_check").fetchall()
    assert sound == [("ok",)], f"integrity_check: {sound[:3]}"
    total = 0
    for writer, log in logs:
        with open(log, "rb") as lines:
            logged = int((lines.read().split() or [b"0"])[-1])
        last = last_of(database, writer)
        assert logged <= last <= logged + 1, f"writer {writer}: {logged} are logged, {last} are there"
        there = [number for number in range(1, last + 1) if is_there(number, last)]
        wanted = [row for number in there for row in rows_of(writer, number)]
        rows = "SELECT * FROM rows WHERE writer = ? ORDER BY number, part"
        found = database.execute(rows, (writer,)).fetchall()
        assert found == wanted, f"writer {writer}: {len(found)} rows, {len(wanted)} expected, or others"
        total += last
    print(f"{total} transactions")


def main(arguments):
    if arguments[:1] == ["create"] and len(arguments) == 3:
        connect(*arguments[1:])
    elif arguments[:1] == ["write"] and len(arguments) == 5:
        write(*arguments[1:])
    elif arguments[:1] == ["check"] and len(arguments) > 2:
        check(arguments[1], [pair.split("=", 1) for pair in arguments[2:]])
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
