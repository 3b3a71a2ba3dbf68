#!/usr/bin/env bash
# Hardware as people have it: disks with sectors of 512 bytes and of 4 KiB, and files, of odd sizes in one
# pool; pools of 2 to 32 disks with every redundancy they allow; and what `create` must refuse.
#
#     tests/loop/hardware.sh [--full]
#
# 1. mixed: a tree in a pool of all kinds of disks, kill -9, O_DIRECT in units of 512 bytes and 4 KiB, m disks
#    away, one of 4 KiB sectors added and one of 512 bytes removed.
# 2. matrix: for each number of disks, for m = 1 to 3, replicas and erasure codes: files survive kill -9, and
#    then m disks chosen by the seed.
# 3. refused: a clear error, an exit code, and nothing is written.
#
# Short: three pools of the matrix. Full: 48.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

full=false operations=200
if [ "${1:-}" = --full ]; then full=true operations=3000; fi
start hardware

# must_fail NAME COMMAND...: the judge sees what was planted, or its silence means nothing.
must_fail() {
  local name=$1
  shift
  if "$@" >/dev/null 2>&1; then not_ok "$name: it is not"; else ok "$name"; fi
}

compared() {
  local name=$1
  shift
  if expect_same "$name" "$@"; then ok "$name: compared"; fi
}

# --- disks of all kinds --------------------------------------------------------------------------

# make_disk INDEX KIND BYTES: a disk with sectors of 512 or 4096 bytes, or a file; into DISKS.
make_disk() {
  truncate --size "$3" "$WORK/disk$1"
  if [ "$2" = file ]; then
    DISKS[$1]=$WORK/disk$1
  else
    DISKS[$1]=$(losetup --find --show --sector-size "$2" --direct-io=on "$WORK/disk$1" 2>/dev/null) ||
      DISKS[$1]=$(losetup --find --show --sector-size "$2" "$WORK/disk$1")
    LOOPS+=("${DISKS[$1]}")
    [ "$(blockdev --getss "${DISKS[$1]}")" = "$2" ] || { not_ok "probe: ${DISKS[$1]} has other sectors"; exit 1; }
  fi
  KINDS[$1]=$2
}

# away INDEX: it is no longer there when the pool is mounted next; BACK is how it comes back.
away() {
  if [ "${KINDS[$1]:-}" = file ]; then DISKS[$1]=; else
    detach_disk "$1"
    probe_detached "$1"
  fi
}

back() {
  local index
  for index in "${!DISKS[@]}"; do
    [ -n "${DISKS[index]}" ] || make_disk "$index" "${KINDS[index]}" "$(stat --format %s "$WORK/disk$index")"
  done
}

# break_disk INDEX: under the mounted pool.
break_disk() {
  if [ "${KINDS[$1]}" = file ]; then truncate --size 0 "$WORK/disk$1"; else take_away "$1"; fi
}

drop_disks() {
  local index
  for index in "${!DISKS[@]}"; do
    case ${DISKS[index]} in /dev/loop*) detach "${DISKS[index]}" ;; esac
    rm -f "$WORK/disk$index"
  done
  DISKS=() KINDS=()
}

declare -a KINDS=()
direct() { python3 "$ROOT/tests/loop/direct.py" "$@"; }

# compare_mixed NAME: the tree, and the file that was written in both ways.
compare_mixed() {
  compared "$1" "$WORK/source" "$WORK/mount/tree"
  expect "$1: O_DIRECT" direct compare "$WORK/mount/direct" "$WORK/direct"
}

mixed_disks() {
  local mib=$((1 << 20))
  # Odd sizes: those of files in bytes, those of disks in sectors.
  make_disk 0 512 $((300 * mib + 512 * 7))
  make_disk 1 4096 $((310 * mib + 4096 * 3))
  make_disk 2 file $((305 * mib + 1234))
  make_disk 3 512 $((333 * mib - 512))
  make_disk 4 4096 $((350 * mib + 4096))
  make_disk 5 file $((299 * mib + 1))
  make_disk 6 512 $((301 * mib + 512 * 3))
  make_disk 7 4096 $((320 * mib - 4096))
}

mixed() {
  mixed_disks
  mkdir "$WORK/source"
  make_oddities "$WORK/source" 300
  rm -f "$WORK/source/sparse"
  head -c 25000000 /dev/urandom >"$WORK/source/large"
  pool_create "mixed$$" ec:4+2
  pool_mount_foreground
  cp -a "$WORK/source" "$WORK/mount/tree"
  expect "mixed: $operations operations with O_DIRECT" \
    direct exercise "$WORK/mount/direct" "$WORK/direct" "$SEED" "$operations"
  pool_sync
  kill_daemon
  pool_mount_foreground
  compare_mixed "mixed: after kill -9"
  pool_check "mixed: check of all shards" --deep
  cp "$WORK/direct" "$WORK/spoiled"
  printf x | dd of="$WORK/spoiled" bs=1 seek=1000003 conv=notrunc status=none
  must_fail "mixed: one byte is seen, read with O_DIRECT" direct compare "$WORK/mount/direct" "$WORK/spoiled"
  pool_umount
  mixed_without
  mixed_changes
  drop_disks
}

# mixed_without: disks of two kinds are away at the mount, pair by pair.
mixed_without() {
  local pair pairs=("1 2")
  if $full; then pairs=("0 1" "1 2" "2 3" "4 7" "5 2" "6 3"); fi
  for pair in "${pairs[@]}"; do
    for index in $pair; do away "$index"; done
    pool_mount_foreground
    compare_mixed "mixed: without $pair"
    expect "mixed: written without $pair" cp "$WORK/source/large" "$WORK/mount/large"
    pool_umount
    back
    pool_mount_foreground
    expect "mixed: what was written without $pair" cmp "$WORK/source/large" "$WORK/mount/large"
    pool_umount
  done
}

# mixed_changes: while it is mounted, a disk with the other kind of sectors comes and one goes; then two break.
mixed_changes() {
  pool_mount_foreground
  make_disk 8 4096 $((340 << 20))
  expect "mixed: a disk with sectors of 4 KiB is added" "$ISOTHERM" disk add "$WORK/mount" "${DISKS[8]}"
  expect "mixed: one with sectors of 512 bytes is removed" "$ISOTHERM" disk remove "$WORK/mount" "${DISKS[0]}"
  compare_mixed "mixed: after that"
  expect "mixed: O_DIRECT after that" direct exercise "$WORK/mount/direct" "$WORK/direct" $((SEED + 1)) "$operations"
  kill_daemon
  detach_disk 0
  pool_mount_foreground
  compare_mixed "mixed: after that and kill -9"
  pool_check "mixed: check after that" --deep
  # With nothing in the kernel's memory or the daemon's.
  pool_umount
  pool_mount_foreground
  break_disk 8
  break_disk 5
  compare_mixed "mixed: two disks broke under it"
  expect "mixed: O_DIRECT then" direct exercise "$WORK/mount/direct" "$WORK/direct" $((SEED + 2)) "$operations"
  pool_umount
}

# --- the matrix ----------------------------------------------------------------------------------

# matrix_source: some MB, in files small and large; made once.
matrix_source() {
  local number
  mkdir -p "$WORK/files/small"
  for number in $(seq 60); do head -c $((RANDOM / 4)) /dev/urandom >"$WORK/files/small/$number"; done
  head -c 5000001 /dev/urandom >"$WORK/files/large"
  head -c 700000 /dev/urandom >"$WORK/files/middle"
  : >"$WORK/files/empty"
}

# some_disks COUNT OF: that many different numbers below OF.
some_disks() {
  local -a all=()
  local index other count=$1
  mapfile -t all < <(seq 0 $(($2 - 1)))
  for ((index = 0; index < count; index++)); do
    other=$((index + RANDOM % (${#all[@]} - index)))
    echo "${all[other]}"
    all[other]=${all[index]}
  done
}

fsync_all() { find "$1" -type f -print0 | xargs -0 sync; }

# matrix_pool DISKS M REDUNDANCY: one pool from beginning to end. One result, unless something is wrong.
matrix_pool() {
  local count=$1 m=$2 redundancy=$3 name="matrix: $1 disks, $3" before=$FAILED index sizes=()
  local -a gone=()
  for ((index = 0; index < count; index++)); do sizes+=($((256 + RANDOM % 40))); done
  make_disks "${sizes[@]}"
  if ! pool_create "matrix$$" "$redundancy" 2>"$WORK/create.error" || ! pool_mount_foreground; then
    not_ok "$name: is not made: $(tail -n 2 "$WORK/create.error" "$WORK/daemon.log" | tr '\n' ' ')"
    exit 1
  fi
  cp -a "$WORK/files" "$WORK/mount/files"
  fsync_all "$WORK/mount/files"
  kill_daemon
  pool_mount_foreground
  expect_same "$name: after kill -9" "$WORK/files" "$WORK/mount/files" || true
  "$ISOTHERM" check "$WORK/mount" --deep >"$WORK/check.log" 2>&1 || not_ok "$name: $(head -n 3 "$WORK/check.log")"
  pool_umount
  mapfile -t gone < <(some_disks "$m" "$count")
  for index in "${gone[@]}"; do
    detach_disk "$index"
    probe_detached "$index"
  done
  matrix_without "$name, without ${gone[*]}" $((count <= 2 * m)) $((count - m > m))
  attach_disks
  pool_mount_foreground
  expect_same "$name: all are back" "$WORK/files" "$WORK/mount/files" || true
  pool_umount
  drop_disks
  [ "$FAILED" != "$before" ] || ok "$name: kill -9, then without ${gone[*]}"
}

# matrix_without NAME READ_ONLY ROOM: m disks are away; where they could be in use elsewhere, the pool is
# read-only until -o degraded. Writing is tried if there are enough disks for it.
matrix_without() {
  if ! pool_mount_foreground; then
    not_ok "$1: does not mount: $(tail -n 2 "$WORK/daemon.log" | tr '\n' ' ')"
    return
  fi
  expect_same "$1" "$WORK/files" "$WORK/mount/files" || true
  if [ "$2" = 1 ]; then
    if touch "$WORK/mount/written" 2>"$WORK/error"; then not_ok "$1: can be written to"; fi
    grep --quiet "Read-only" "$WORK/error" || not_ok "$1: $(cat "$WORK/error")"
    pool_umount
    pool_mount_foreground -o degraded
    expect_same "$1, -o degraded" "$WORK/files" "$WORK/mount/files" || true
  fi
  if [ "$3" = 1 ]; then
    if ! cp "$WORK/files/large" "$WORK/mount/written" || ! sync "$WORK/mount/written" ||
      ! cmp "$WORK/files/large" "$WORK/mount/written"; then
      not_ok "$1: cannot be written to"
    fi
    rm -f "$WORK/mount/written"
  fi
  pool_umount
}

matrix() {
  local count m data
  matrix_source
  if ! $full; then
    matrix_pool 2 1 replica:2
    matrix_pool 5 2 ec:3+2
    matrix_pool 32 3 ec:29+3
    return
  fi
  for count in 2 3 4 5 8 12 17 24 32; do
    for m in 1 2 3; do
      [ "$count" -gt "$m" ] || continue
      matrix_pool "$count" "$m" "replica:$((m + 1))"
      data=$((count - m))
      matrix_pool "$count" "$m" "ec:$data+$m"
    done
  done
}

# --- what is refused -----------------------------------------------------------------------------

# untouched: nothing was written to any of the disks.
untouched() {
  local disk
  for disk in "$WORK"/blank/*; do
    [ ! -f "$disk" ] || [ "$(stat --format %b "$disk")" = 0 ] || { echo "$disk was written to"; return 1; }
  done
}

# refused NAME WORDS ARGUMENTS...: create ends with an error that says why, and has written nothing.
refused() {
  local name="refused: $1" words=$2 status=0
  shift 2
  (cd "$WORK/blank" && "$ISOTHERM" create "$@") >"$WORK/refused" 2>"$WORK/error" || status=$?
  if [ "$status" != 1 ]; then
    not_ok "$name: it ends with $status: $(head -n 3 "$WORK/refused" "$WORK/error" | tr '\n' ' ')"
  elif ! grep --quiet --extended-regexp "^isotherm: .*$words|^  .*$words" "$WORK/error"; then
    not_ok "$name: it says: $(head -n 3 "$WORK/error" | tr '\n' ' ')"
  else
    expect "$name: $(head -n 1 "$WORK/error")" untouched
  fi
}

refusals() {
  local name many=()
  mkdir -p "$WORK/blank/directory"
  for name in a b c; do truncate --size 300M "$WORK/blank/$name"; done
  truncate --size $((268435456 - 1)) "$WORK/blank/small"
  : >"$WORK/blank/empty"
  ln -s a "$WORK/blank/symlink"
  ln "$WORK/blank/a" "$WORK/blank/link"
  for name in $(seq 65); do many+=("many$name") && truncate --size 256M "$WORK/blank/many$name"; done
  refused "too few for replica:3" "2 disks .* needs 3" x a b --redundancy replica:3
  refused "too few for ec:3+2" "3 disks .* needs 5" x a b c --redundancy ec:3+2
  refused "65 disks" "65 disks .* at most 64" x "${many[@]}" --redundancy ec:4+2
  refused "a disk twice" "same physical drive" x a b a
  refused "by a symbolic link" "same physical drive" x a b symlink
  refused "by a hard link" "same physical drive" x a link b
  refused "too small" "small: .* too small" x a b small
  refused "empty" "empty: .* too small" x a b empty
  refused "a directory" "directory: neither" x a b directory
  refused "a character device" "/dev/null: neither" x a b /dev/null
  refused "nothing there" "there is no such" x a b nothing
  refused "one disk" "one disk cannot protect" x a
  refused "none with several" "none is for one disk" x a b --redundancy none
  refused "a slash in the name" "cannot be a pool's name" x/y a b
  for name in raid6 ec:40+2 ec:4+0 ec:4+9 replica:0 ec:-1+2; do
    refused "$name" "is no redundancy" x a b c "--redundancy=$name"
  done
  refused_devices
  refused_members
  printf x | dd of="$WORK/blank/b" bs=1 seek=200000000 conv=notrunc status=none
  must_fail "refused: one byte that was written is seen" untouched
}

refused_devices() {
  local one
  attach "$WORK/blank/a"
  one=$ATTACHED
  refused "a device and the file below it" "same physical drive" x "$one" a b
  attach "$WORK/blank/a"
  refused "two devices of one file" "same physical drive" x "$one" "$ATTACHED" b
  detach "$ATTACHED"
  detach "$one"
  one=$(losetup --find --show --read-only "$WORK/blank/a")
  LOOPS+=("$one")
  refused "a read-only device" "$one: read-only" x "$one" b c
  refused "a read-only device by force" "$one: read-only" x "$one" b c --force
  detach "$one"
}

# refused_members: disks of a pool, mounted or not, are not taken.
refused_members() {
  local sum
  make_disks 260 260
  pool_create "member$$" replica:2
  sum=$(cat "$WORK/disk0" "$WORK/disk1" | sha256sum)
  refused "disks of a pool" "${DISKS[0]}: .*sotherm" x "${DISKS[@]}"
  [ "$(cat "$WORK/disk0" "$WORK/disk1" | sha256sum)" = "$sum" ] || not_ok "refused: disks of a pool were written to"
  pool_mount_foreground
  refused "disks of a mounted pool by force" "${DISKS[1]}: .*open" x "${DISKS[@]}" --force
  pool_umount
  drop_disks
}

refusals
mixed
matrix
