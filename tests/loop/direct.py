#!/usr/bin/env python3
"""Writes and reads with O_DIRECT, at 512 bytes and at 4 KiB, beside a file that is written in the ordinary way.

    direct.py exercise FILE BESIDE SEED COUNT   COUNT operations on both; then they are the same, read with
                                                O_DIRECT and without
    direct.py compare FILE BESIDE               they are the same, read with O_DIRECT in both units and without

Exit status 1 and one line that says what is wrong.
"""

import mmap
import os
import random
import sys

UNITS = (512, 4096)
FILE_BYTES = 3 << 20
# At most so many bytes in one operation.
PIECE_MAX = 256 << 10


def open_both(path, beside, flags):
    return os.open(path, flags | os.O_DIRECT, 0o600), os.open(beside, flags, 0o600)


def read_direct(file, buffer, offset, length):
    view = memoryview(buffer)[:length]
    done = os.preadv(file, [view], offset)
    return bytes(view[:done])


def exercise(path, beside, seed, count):
    chance = random.Random(int(seed))
    file, ordinary = open_both(path, beside, os.O_RDWR | os.O_CREAT)
    buffer = mmap.mmap(-1, PIECE_MAX)
    for number in range(int(count)):
        unit = UNITS[number % 2]
        offset = chance.randrange(FILE_BYTES // unit) * unit
        length = chance.randint(1, chance.choice([1, 8, PIECE_MAX // unit])) * unit
        if chance.random() < 0.7:
            data = chance.randbytes(length)
            buffer[:length] = data
            done = os.pwritev(file, [memoryview(buffer)[:length]], offset)
            if done != length:
                sys.exit(f"{done} of {length} bytes were written at {offset}")
            os.pwrite(ordinary, data, offset)
        elif read_direct(file, buffer, offset, length) != os.pread(ordinary, length, offset):
            sys.exit(f"operation {number}: {length} bytes at {offset} differ")
        if chance.random() < 0.05:
            os.fsync(file)
    os.fsync(file)
    compare(path, beside)


def compare(path, beside):
    file, ordinary = open_both(path, beside, os.O_RDONLY)
    size = os.fstat(ordinary).st_size
    if os.fstat(file).st_size != size:
        sys.exit(f"{os.fstat(file).st_size} bytes instead of {size}")
    buffer = mmap.mmap(-1, PIECE_MAX)
    for step in (*UNITS, PIECE_MAX):
        # All of it in large steps, some of it in small ones.
        places = range(0, size, step) if step == PIECE_MAX else range(0, size, step * 61)
        for offset in places:
            if read_direct(file, buffer, offset, step) != os.pread(ordinary, step, offset):
                sys.exit(f"{step} bytes at {offset} differ, read with O_DIRECT")
    with open(path, "rb") as one, open(beside, "rb") as other:
        if one.read() != other.read():
            sys.exit("they differ, read without O_DIRECT")


def main():
    commands = {"exercise": exercise, "compare": compare}
    if sys.argv[1:2] and sys.argv[1] in commands:
        commands[sys.argv[1]](*sys.argv[2:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
