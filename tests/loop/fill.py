#!/usr/bin/env python3
"""Fills a directory with files whose bytes follow from their names, checks and deletes them.

    fill.py fill DIR PREFIX BYTES      files of BYTES until ENOSPC; prints how many bytes were accepted
    fill.py check DIR                  every file is whole and right; prints how many there are
    fill.py thin DIR                   deletes every second file; prints how many bytes that were
    fill.py list DIR                   their names, in that order
    fill.py kept DIR LIST              none is gone that `thin` leaves, by the names of before
    fill.py overwrite FILE MIB TIMES ORDER
                                       one file, written TIMES times in blocks of 64 KiB, `in-order` or at `random`
                                       (the first time in order), synced every 64 MiB, and checked; prints how many
                                       bytes were written

Exit status 1 and one line that says what is wrong.
"""

import errno
import hashlib
import os
import random
import sys

BLOCK = 64 << 10
SYNCED = 64 << 20


def content(name, length):
    return hashlib.shake_128(name.encode()).digest(length)


def fill(directory, prefix, length):
    written = 0
    for number in range(1 << 30):
        name = f"{prefix}-{length}-{number:06}"
        path = os.path.join(directory, name)
        try:
            with open(path, "wb", buffering=0) as file:
                data = content(name, length)
                done = file.write(data)
                while done < length:
                    done += file.write(data[done:])
                if number % 16 == 0:
                    os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                sys.exit(f"{path}: {error}")
            # What was not accepted whole is no file of ours.
            if os.path.exists(path):
                os.unlink(path)
            print(written)
            return
        written += length


def names(directory):
    return sorted(name for name in os.listdir(directory) if name.count("-") == 2)


def difference(found, wanted):
    """Where the two part, in words."""
    if len(found) != len(wanted) and wanted.startswith(found):
        return f"it ends after {len(found)} of {len(wanted)} bytes"
    parts = [at for at in range(0, len(wanted), 4096) if found[at : at + 4096] != wanted[at : at + 4096]]
    zeros = sum(not any(found[at : at + 4096]) for at in parts)
    return (
        f"{len(found)} of {len(wanted)} bytes, {len(parts)} blocks of 4 KiB differ, {zeros} of them empty, "
        f"the first at {parts[0]}, the last at {parts[-1]}"
    )


def check(directory):
    count = 0
    for name in names(directory):
        length = int(name.split("-")[1])
        with open(os.path.join(directory, name), "rb") as file:
            found, wanted = file.read(), content(name, length)
        if found != wanted:
            sys.exit(f"{directory}/{name} is not what was written: {difference(found, wanted)}")
        count += 1
    print(count)


def thin(directory):
    freed = 0
    for number, name in enumerate(names(directory)):
        if number % 2 == 0:
            os.unlink(os.path.join(directory, name))
            freed += int(name.split("-")[1])
    print(freed)


def kept(directory, list_path):
    """Of what was there before `thin`, every second one is."""
    with open(list_path) as file:
        before = file.read().split()
    gone = set(before) - set(names(directory))
    lost = gone & set(before[1::2])
    if not before or lost:
        sys.exit(f"{len(lost)} of {len(before)} are gone that nobody deleted: {sorted(lost)[:3]}")
    print(len(gone))


def overwrite(path, mib, times, order):
    blocks = mib * (1 << 20) // BLOCK
    versions = [0] * blocks
    draw = random.Random(int(os.environ.get("SEED", "1")))
    written = 0

    def block(at):
        return content(f"{at}.{versions[at]}", 64) * (BLOCK // 64)

    with open(path, "wb", buffering=0) as file:
        for round in range(times * blocks):
            at = round % blocks if order == "in-order" or round < blocks else draw.randrange(blocks)
            versions[at] += 1
            try:
                if os.pwrite(file.fileno(), block(at), at * BLOCK) != BLOCK:
                    sys.exit(f"{path}: a short write after {written} bytes")
            except OSError as error:
                sys.exit(f"{path}: {error} after {written} bytes")
            written += BLOCK
            if written % SYNCED == 0:
                os.fsync(file.fileno())
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        for at in range(blocks):
            if file.read(BLOCK) != block(at):
                sys.exit(f"{path}: block {at} is not what was written last")
    print(written)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "fill":
        fill(rest[0], rest[1], int(rest[2]))
    elif command == "check":
        check(rest[0])
    elif command == "thin":
        thin(rest[0])
    elif command == "list":
        print("\n".join(names(rest[0])))
    elif command == "kept":
        kept(rest[0], rest[1])
    elif command == "overwrite":
        overwrite(rest[0], int(rest[1]), int(rest[2]), rest[3])
    else:
        sys.exit(__doc__)
