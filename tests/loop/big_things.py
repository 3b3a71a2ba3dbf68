#!/usr/bin/env python3
"""Files with much of something, a tree of many files, and somebody who does small things meanwhile.

    big_things.py set-xattrs FILE COUNT        COUNT attributes, every fourth of 64 KiB, synced
    big_things.py check-xattrs FILE COUNT      they are listed and read as they were set
    big_things.py remove-xattrs FILE COUNT     removes them one by one; then there is none
    big_things.py set-large-xattrs FILE COUNT  COUNT attributes of 64 KiB
    big_things.py list-xattrs FILE COUNT       four processes list COUNT attributes at once
    big_things.py names-of-xattrs FILE         adds some while they can be listed; prints bytes of their names
    big_things.py extents FILE COUNT           writes of 512 bytes, 8 KiB apart, synced now and then
    big_things.py check-extents FILE FROM TO   they are what was written, with zeros between
    big_things.py make-tree DIR COUNT          files of 100 bytes, a thousand in each directory
    big_things.py remove-tree DIR COUNT LOG    unlinks them in order, synced now and then; LOG says how many
    big_things.py check-removed DIR COUNT LOG  after a crash: a beginning of them is gone, as LOG allows, and the
                                               rest is whole; prints how many are gone
    big_things.py bystander DIR LOG            until it is killed: creates, writes and syncs a small file, renames,
                                               reads and unlinks it; LOG says how often, the longest wait (ms), and
                                               since when (ms since 1970) it has waited now

Exit status 1 and one line that says what is wrong.
"""

import errno
import hashlib
import mmap
import multiprocessing
import os
import random
import sys
import time

STRIDE = 8 << 10
PIECE = 512
PIECES_SYNCED = 20_000
FILES_IN_DIRECTORY = 1000
FILE_BYTES = 100
UNLINKS_SYNCED = 700


def content(name, length):
    return hashlib.shake_128(name.encode()).digest(length)


# --- attributes ----------------------------------------------------------------------------------


def attribute(number):
    length = 65_536 if number % 4 == 0 else number % 300
    return f"user.{number:04}", content(f"x{number}", length)


def set_xattrs(path, count):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(file, content(path, 1000), 0)
    for number in range(count):
        os.setxattr(file, *attribute(number))
    os.fsync(file)


def check_xattrs(path, count):
    names = os.listxattr(path)
    wanted = [attribute(number)[0] for number in range(count)]
    if sorted(names) != wanted:
        missing = sorted(set(wanted) - set(names))
        sys.exit(f"{len(names)} attributes are listed, not {count}; missing: {missing[:3]}")
    for number in range(count):
        name, value = attribute(number)
        if os.getxattr(path, name) != value:
            sys.exit(f"{name} has another value")


def remove_xattrs(path, count):
    order = list(range(count))
    random.Random(count).shuffle(order)
    for number in order:
        os.removexattr(path, attribute(number)[0])
    names = os.listxattr(path)
    if names:
        sys.exit(f"{len(names)} attributes are left, {names[0]} among them")


def set_large_xattrs(path, count):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for number in range(count):
        os.setxattr(file, f"user.{number}", content(f"large{number}", 65_536))
    os.fsync(file)


def list_xattrs(path, count):
    with multiprocessing.Pool(4) as pool:
        found = [len(names) for names in pool.map(os.listxattr, [path] * 4, 1)]
    if found != [count] * 4:
        sys.exit(f"{found} attributes are listed, not {count} each")


def names_of_xattrs(path):
    """A list is at most 64 KiB, the kernel says."""
    name_bytes = 0
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    for number in range(1000):
        name = f"user.{number:0250}"
        os.setxattr(path, name, b"")
        try:
            if len(os.listxattr(path)) != number + 1:
                sys.exit(f"{number + 1} attributes, and not all of them are listed")
        except OSError as error:
            if error.errno != errno.E2BIG:
                sys.exit(f"with names of {name_bytes + len(name) + 1} bytes listing fails: {error}")
            if os.getxattr(path, name) != b"":
                sys.exit(f"{name} cannot be read")
            print(name_bytes)
            return
        name_bytes += len(name) + 1
    sys.exit("a list has no end")


# --- extents -------------------------------------------------------------------------------------


def piece(number):
    return content(f"e{number}", PIECE)


def extents(path, count):
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
    buffer = mmap.mmap(-1, 4096)
    view = memoryview(buffer)[:PIECE]
    for number in range(count):
        view[:] = piece(number)
        if os.pwrite(file, view, number * STRIDE) != PIECE:
            sys.exit(f"a short write at {number * STRIDE}")
        if number % PIECES_SYNCED == PIECES_SYNCED - 1:
            os.fsync(file)
    os.fsync(file)


def check_extents(path, start, end):
    """All of a few; of many the first, and a sample."""
    size = (end - 1) * STRIDE + PIECE
    numbers = range(start, end)
    if len(numbers) > 40_000:
        numbers = sorted({*numbers[:50], *random.Random(end).sample(numbers, 40_000)})
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            sys.exit(f"{path} has {found} bytes, not {size}")
        for number in numbers:
            wanted = piece(number) + bytes(STRIDE - PIECE)
            wanted = wanted[: size - number * STRIDE]
            if os.pread(file.fileno(), STRIDE, number * STRIDE) != wanted:
                sys.exit(f"{path} differs in the 8 KiB at {number * STRIDE}")


# --- trees ---------------------------------------------------------------------------------------


def tree_path(number):
    return f"{number // FILES_IN_DIRECTORY:04}/{number:07}"


def make_tree(directory, count):
    for number in range(count):
        path = os.path.join(directory, tree_path(number))
        if number % FILES_IN_DIRECTORY == 0:
            os.makedirs(os.path.dirname(path))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, content(tree_path(number), FILE_BYTES))
        os.close(file)


def remove_tree(directory, count, log):
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    synced = 0
    for number in range(count):
        os.pwrite(log, f"{number + 1:10} {synced:10}\n".encode(), 0)
        path = os.path.join(directory, tree_path(number))
        try:
            os.unlink(path)
            if number % UNLINKS_SYNCED == UNLINKS_SYNCED - 1:
                top = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
                os.fsync(top)
                os.close(top)
                synced = number + 1
        except OSError:
            return


def check_file(directory, number):
    """Whether it is there; what is there is whole."""
    try:
        with open(os.path.join(directory, tree_path(number)), "rb", buffering=0) as file:
            if file.read() != content(tree_path(number), FILE_BYTES):
                sys.exit(f"{tree_path(number)} is not what was written")
        return True
    except FileNotFoundError:
        return False


def check_removed(directory, count, log):
    with open(log, encoding="ascii") as text:
        begun, synced = (int(word) for word in text.read().split())
    gone = 0
    while gone < count and not check_file(directory, gone):
        gone += 1
    if gone > begun:
        sys.exit(f"{gone} files are gone, and only {begun} unlinks had begun")
    if gone < synced:
        sys.exit(f"{gone} files are gone, and {synced} were before an fsync")
    # All around there, and a sample of the rest; of which the names are all listed.
    near = range(gone, min(count, gone + 1000))
    for number in [*near, *random.Random(count).sample(range(gone, count), min(1000, count - gone))]:
        if not check_file(directory, number):
            sys.exit(f"{tree_path(number)} is gone, though {tree_path(gone)} is there")
    found = sum(len(names) for _, _, names in os.walk(directory))
    if found != count - gone:
        sys.exit(f"{found} files are listed, not {count - gone}")
    print(gone)


# --- a bystander ---------------------------------------------------------------------------------


def bystander(directory, log):
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    longest, number = 0.0, 0
    os.makedirs(directory, exist_ok=True)
    while True:
        old, new = os.path.join(directory, "old"), os.path.join(directory, f"new{number % 10}")
        data = content(f"b{number}", 3000)
        began = time.monotonic()
        os.pwrite(log, f"{number:10} {int(longest * 1000):10} {int(time.time() * 1000):15}".encode(), 0)
        file = os.open(old, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, data)
        os.fsync(file)
        os.close(file)
        os.rename(old, new)
        with open(new, "rb", buffering=0) as file:
            if file.read() != data:
                sys.exit(f"{new} is not what was written")
        if number % 10 == 9:
            for entry in os.listdir(directory):
                os.unlink(os.path.join(directory, entry))
        longest = max(longest, time.monotonic() - began)
        number += 1
        time.sleep(0.01)


def main():
    numbers = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    commands = [
        *(set_xattrs, check_xattrs, remove_xattrs, set_large_xattrs, list_xattrs, names_of_xattrs),
        *(extents, check_extents, make_tree, remove_tree, check_removed, bystander),
    ]
    for command in commands:
        if sys.argv[1:2] == [command.__name__.replace("_", "-")]:
            command(*numbers)
            return
    sys.exit(__doc__)


if __name__ == "__main__":
    main()
