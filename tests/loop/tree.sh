#!/usr/bin/env bash
# A real tree on eight unequal disks: copied with cp -a, compared with rsync after a remount, then
# with pairs of disks missing; and git and cargo at work inside the mount.
#
#     tests/loop/tree.sh [--full] [REDUNDANCY...]
#
# Short: some 400 MB, three random pairs. Full: at least 2 GB and 90,000 files, all 28 pairs.
# Both with the default redundancy and with ec:6+2, or with those that are named.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

full=false
[ "${1:-}" != --full ] || { full=true; shift; }
start tree

toolchain=$(rustc --print sysroot)
declare -a PARTS=()
file_count=0
byte_count=0

# add SOURCE: one more part of the tree, if it is there.
add() {
  [ -d "$1" ] || return 0
  PARTS+=("$1")
  read -r more_files more_bytes < <(find "$1" -xdev -type f -printf '%s\n' |
    awk '{ n++; s += $1 } END { printf "%d %d\n", n, s }')
  file_count=$((file_count + more_files))
  byte_count=$((byte_count + more_bytes))
}

choose_parts() {
  local want_files=90000 want_bytes=2000000000 round=0
  if $full; then
    add "$toolchain"
    add /usr/share
    while [ "$file_count" -lt "$want_files" ] || [ "$byte_count" -lt "$want_bytes" ]; do
      if [ $((round % 2)) = 0 ]; then add "$toolchain/lib"; else add /usr/share; fi
      round=$((round + 1))
      [ "$round" -lt 100 ] || { not_ok "tree: no source is large enough"; exit 1; }
    done
  else
    for part in "$toolchain/lib/rustlib/etc" "$toolchain/bin" "$toolchain/libexec" /usr/share/doc \
      /usr/share/zoneinfo /usr/share/locale /usr/share/perl; do
      add "$part"
    done
  fi
}

part_name() { printf 'part%s' "$1"; }

copy_tree() {
  local index
  for index in "${!PARTS[@]}"; do
    cp -a "${PARTS[index]}" "$WORK/mount/$(part_name "$index")"
  done
  cp -a "$WORK/odd" "$WORK/mount/odd"
}

# compare NAME: one result for the whole tree.
compare() {
  local index
  for index in "${!PARTS[@]}"; do
    expect_same "$1" "${PARTS[index]}" "$WORK/mount/$(part_name "$index")" || return 0
  done
  expect_same "$1" "$WORK/odd" "$WORK/mount/odd" || return 0
  ok "$1"
}

# A repository cloned and a program built and run, all inside the mount.
work_inside() {
  local repository=$WORK/repository inside=$WORK/mount/clone
  if [ ! -d "$repository" ]; then
    mkdir -p "$repository/src"
    printf '[package]\nname = "inside"\nversion = "0.1.0"\nedition = "2021"\n' >"$repository/Cargo.toml"
    printf 'fn main() { println!("built inside"); }\n' >"$repository/src/main.rs"
    git -C "$repository" init --quiet
    git -C "$repository" add .
    git -C "$repository" -c user.name=Test -c user.email=test@example.org commit --quiet -m start
  fi
  git clone --quiet "$repository" "$inside" && git -C "$inside" fsck --no-progress &&
    (cd "$inside" && CARGO_TARGET_DIR=$inside/target cargo build --quiet --offline) &&
    [ "$("$inside/target/debug/inside")" = "built inside" ]
}

# with_pair I J NAME: the pool without these two, read-only, compared.
with_pair() {
  detach_disk "$1"
  detach_disk "$2"
  probe_detached "$1"
  probe_detached "$2"
  if pool_mount --read-only; then
    # Cold without dropping anything: the kernel's cache went with the mount before, the daemon's with its
    # process, and the daemon reads the disks directly. Dropping the source's cache only takes time.
    compare "$3"
    pool_umount
  else
    not_ok "$3: does not mount: $(tail -n 3 "$WORK/mount.log" | tr '\n' ' ')"
  fi
  attach_disks
}

# The last one: two gone for good while the pool is mounted, written to, mounted again without them.
taken_while_mounted() {
  local name="$1, two disks taken away while mounted"
  pool_mount
  drop_caches
  take_away 2
  take_away 5
  compare "$name"
  cp -a "$WORK/odd" "$WORK/mount/odd-degraded"
  pool_umount
  detach_disk 2
  detach_disk 5
  pool_mount
  expect_same "$name, remounted" "$WORK/odd" "$WORK/mount/odd-degraded" && compare "$name, remounted"
  pool_umount
}

run_with() {
  local redundancy=$1 name=${1:-default} began
  make_disks $((size * 8)) $((size * 9)) $((size * 10)) $((size * 11)) \
    $((size * 12)) $((size * 13)) $((size * 14)) $((size * 16))
  pool_create "tree$$" "$redundancy"
  pool_mount
  began=$(now_ms)
  copy_tree
  pool_sync
  say "$name: copied in $(($(now_ms) - began)) ms"
  expect "$name: git clone and cargo build inside" work_inside
  rm -rf "$WORK/mount/clone"
  pool_umount
  pool_mount
  began=$(now_ms)
  compare "$name: compared after a remount"
  say "$name: compared in $(($(now_ms) - began)) ms"
  pool_check "$name: check of all shards" --deep
  pool_umount
  local pairs=() first second pair
  for first in 0 1 2 3 4 5 6 7; do
    for ((second = first + 1; second < 8; second++)); do pairs+=("$first $second"); done
  done
  if ! $full; then
    mapfile -t pairs < <(printf '%s\n' "${pairs[@]}" | awk -v seed="$RANDOM" \
      'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort | cut -f2 | head -n 3)
  fi
  for pair in "${pairs[@]}"; do
    read -r first second <<<"$pair"
    with_pair "$first" "$second" "$name: without disks $first and $second"
  done
  taken_while_mounted "$name"
  local index
  for index in "${!DISKS[@]}"; do [ -z "${DISKS[index]}" ] || detach_disk "$index"; done
}

choose_parts
say "tree: $file_count files, $byte_count bytes in ${#PARTS[@]} parts"
mkdir "$WORK/odd"
make_oddities "$WORK/odd"
# MiB: a unit of disk size such that the smallest 8 of 93 units still hold what ec:6+2 puts there.
size=$((byte_count / 1048576 / 28 + 60))
if [ $# -gt 0 ]; then
  for redundancy; do run_with "$redundancy"; done
else
  run_with ""
  [ "$POOL_KIND" = btrfs ] || run_with ec:6+2
fi
