#!/usr/bin/env python3
"""A directory of many names, listed while others come and go in it.

    big_directory.py make DIR COUNT         names that stay: s0000000, s0000001, ...
    big_directory.py stat DIR COUNT         asks for each of them
    big_directory.py churn DIR COUNT SECONDS [PLANT]
                                            processes create, rename and unlink other names, while others
                                            list the directory (os.scandir, and libc's readdir with telldir and
                                            seekdir); prints what they saw
    big_directory.py empty DIR              unlinks what is in it

In each full listing a name that stays is seen exactly once. Of the names that come and go (`c` of this and
that process, numbered), none is seen that was unlinked before the listing began or made after it ended.
PLANT spoils what readers are given, so that they must find it: `lost`, `twice`, `never`, `dead`, `moved`.
Exit status 1 and lines that say what is wrong.
"""

import ctypes
import multiprocessing
import os
import random
import sys
import time

CHANGERS = 2
READERS = 2
# Names of a changer that exist at a time.
ALIVE = 200
# Between places that a reader comes back to.
MARK_EVERY = 997
MARKS_TRIED = 12


def stays(number):
    return f"s{number:07}"


def make(directory, count):
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        os.mknod(stays(number), 0o600, dir_fd=top)
    os.fsync(top)


def stat(directory, count):
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        os.stat(stays(number), dir_fd=top)


def empty(directory):
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for name in os.listdir(directory):
        os.unlink(name, dir_fd=top)


class Changer:
    """Names c<who>-<number>-<a or b>: made as a, renamed to b, unlinked; always in the order of numbers.

    What is shared is written before a name can be there, and after it cannot be any more."""

    def __init__(self, who):
        self.who = who
        self.made = multiprocessing.Value("q", 0)
        self.unlinked = multiprocessing.Value("q", 0)

    def run(self, directory, enough):
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        number, made = 0, 0
        # In the end all of them go.
        while not enough.is_set() or number < made + ALIVE:
            if not enough.is_set():
                made = number + 1
                self.made.value = made
                os.mknod(f"c{self.who}-{number}-a", 0o600, dir_fd=top)
            half, last = number - ALIVE // 2, number - ALIVE
            if 0 <= half < made:
                old, new = f"c{self.who}-{half}-a", f"c{self.who}-{half}-b"
                os.rename(old, new, src_dir_fd=top, dst_dir_fd=top)
            if last >= 0:
                os.unlink(f"c{self.who}-{last}-b", dir_fd=top)
                self.unlinked.value = last + 1
            number += 1


class LibcDirectory:
    """opendir, readdir, telldir and seekdir of the C library."""

    class Entry(ctypes.Structure):
        _fields_ = [
            ("ino", ctypes.c_uint64),
            ("off", ctypes.c_int64),
            ("length", ctypes.c_uint16),
            ("kind", ctypes.c_uint8),
            ("name", ctypes.c_char * 256),
        ]

    def __init__(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir.restype = ctypes.POINTER(self.Entry)
        libc.telldir.restype = ctypes.c_long
        for call in (libc.readdir, libc.telldir, libc.closedir):
            call.argtypes = [ctypes.c_void_p]
        libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
        self.libc = libc
        self.stream = libc.opendir(os.fsencode(path))
        if not self.stream:
            raise OSError(ctypes.get_errno(), "opendir", path)

    def __iter__(self):
        readdir, stream = self.libc.readdir, self.stream
        while True:
            ctypes.set_errno(0)
            entry = readdir(stream)
            if not entry:
                if ctypes.get_errno():
                    raise OSError(ctypes.get_errno(), "readdir")
                return
            yield os.fsdecode(entry.contents.name)

    def tell(self):
        return self.libc.telldir(self.stream)

    def seek(self, position):
        self.libc.seekdir(self.stream, position)

    def close(self):
        self.libc.closedir(self.stream)


class Listing:
    """What one full listing may show, judged name by name."""

    def __init__(self, count, changers):
        self.seen = bytearray(count)
        self.changers = changers
        self.unlinked_before = [changer.unlinked.value for changer in changers]
        self.numbers = [[] for _ in changers]
        self.faults = []

    def take(self, name):
        if name[0] == "s":
            number = int(name[1:]) if name[1:].isdigit() else -1
            if not 0 <= number < len(self.seen) or name != stays(number):
                self.faults.append(f"{name} never was")
            elif self.seen[number]:
                self.faults.append(f"{name} was listed twice")
            else:
                self.seen[number] = 1
        elif name not in (".", ".."):
            self.take_changing(name)

    def take_changing(self, name):
        parts = name[1:].split("-")
        if name[0] != "c" or len(parts) != 3 or parts[2] not in "ab":
            self.faults.append(f"{name} never was")
            return
        who, number = int(parts[0]), int(parts[1])
        self.numbers[who].append(number)
        if number < self.unlinked_before[who]:
            self.faults.append(f"{name} was unlinked before the listing began")

    def end(self):
        for who, changer in enumerate(self.changers):
            if self.numbers[who] and max(self.numbers[who]) >= changer.made.value:
                self.faults.append(f"c{who}-{max(self.numbers[who])} was not made yet")
        lost = self.seen.count(0)
        if lost:
            self.faults.append(f"{lost} names were not listed, {stays(self.seen.index(0))} first")
        return self.faults


def spoiled(names, plant):
    """The names, with a fault that somebody planted in the middle."""
    last = None
    for index, name in enumerate(names):
        steady = name[0] == "s"
        if steady and last and plant:
            if plant == "twice":
                yield last
            elif plant == "never":
                yield "s9999999"
            elif plant == "dead":
                yield "c0-0-b"
            if plant in ("twice", "never", "dead", "lost"):
                done, plant = plant, None
                if done == "lost":
                    continue
        if steady and index > 10:
            last = name
        yield name


def list_by_scandir(directory, count, changers, plant):
    listing = Listing(count, changers)
    with os.scandir(directory) as entries:
        for name in spoiled((entry.name for entry in entries), plant):
            listing.take(name)
    return listing.end()


def next_steady(names, wanted):
    found = []
    for name in names:
        if name[0] == "s":
            found.append(name)
            if len(found) == wanted:
                break
    return found


def list_by_libc(directory, count, changers, plant):
    """A full listing; then back to places in it, in any order, and what follows there is the same."""
    listing = Listing(count, changers)
    stream = LibcDirectory(directory)
    marks = []
    followed = 0
    for name in spoiled(stream, plant):
        listing.take(name)
        if name[0] != "s":
            continue
        if marks and len(marks[-1][1]) < 20:
            marks[-1][1].append(name)
        followed += 1
        if followed % MARK_EVERY == 0:
            marks.append((stream.tell(), []))
    faults = listing.end()
    for position, names in random.sample(marks, min(MARKS_TRIED, len(marks))):
        stream.seek(position + (1 << 55 if plant == "moved" else 0))
        again = next_steady(stream, len(names))
        if again != names:
            faults.append(f"at {position} {names[:2]} followed, and now {again[:2]}")
    stream.seek(0)
    if plant is None and len(next_steady(stream, 5)) != min(5, count):
        faults.append("nothing follows after seekdir to the start")
    stream.close()
    return faults


def reader(how, directory, count, changers, until, plant, results):
    listings, faults = 0, []
    # A planted fault is to be seen in one listing.
    while not listings or (time.monotonic() < until and not plant):
        faults += how(directory, count, changers, plant)
        listings += 1
    results.put((how.__name__, listings, faults[:5]))


def churn(directory, count, seconds, plant=None):
    until = time.monotonic() + seconds
    changers = [Changer(who) for who in range(CHANGERS)]
    enough = multiprocessing.Event()
    writing = [
        multiprocessing.Process(target=changer.run, args=(directory, enough)) for changer in changers
    ]
    for process in writing:
        process.start()
    while changers[0].unlinked.value < 2:
        time.sleep(0.01)
        if not writing[0].is_alive():
            sys.exit("a process that changes the directory has ended")
    results = multiprocessing.Queue()
    ways = [list_by_scandir, list_by_libc] * (READERS if not plant else 1)
    reading = [
        multiprocessing.Process(
            target=reader, args=(how, directory, count, changers, until, plant, results)
        )
        for how in ways
    ]
    for process in reading:
        process.start()
    reports = [results.get(timeout=900) for _ in ways]
    enough.set()
    for process in writing + reading:
        process.join()
    faults = [f"{how}: {fault}" for how, _, faults in reports for fault in faults]
    faults += [f"a process ended with {process.exitcode}" for process in writing if process.exitcode]
    for fault in faults:
        print(f"FAULT {fault}")
    made = sum(changer.made.value for changer in changers)
    print(f"{sum(report[1] for report in reports)} listings, {made} names came and went meanwhile")
    sys.exit(1 if faults else 0)


def main():
    command, directory, *rest = sys.argv[1:]
    if command in ("make", "stat"):
        {"make": make, "stat": stat}[command](directory, int(rest[0]))
    elif command == "empty":
        empty(directory)
    elif command == "churn":
        churn(directory, int(rest[0]), float(rest[1]), rest[2] if len(rest) > 2 else None)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
