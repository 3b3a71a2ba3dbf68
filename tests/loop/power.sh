#!/usr/bin/env bash
# Power cuts on disks with volatile caches: loop devices over a file layer that keeps writes in memory
# until a FLUSH and loses them when it is killed.
#
#     tests/loop/power.sh [ROUNDS]
#
# 1. Right after `isotherm umount` and after a plain `umount` returned: the pool is clean, all there.
# 2. Under load, ROUNDS times: everything synced is there.
# 3. With one disk hung in a read and one in a FLUSH the daemon is killed: it holds those two and no
#    other, and a mount without them works.
# 4. With disks that lie about FLUSH the checker must find faults: the proof that it can.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${1:-3}
start power
need_loop_program

new_pool() {
  make_disks 500 520 540 560 600 640 700 800
  local index
  for index in "${!DISKS[@]}"; do detach_disk "$index"; done
  layer_up "$@"
  pool_create "power$$"
}

# The files themselves, without layer: what the platters hold.
on_platters() { layer_down; attach_disks; }

# clean: every copy of every label says that the pool is closed.
is_clean() {
  local device labels
  for device in "${DISKS[@]}"; do
    labels=$("$ISOTHERM" inspect label "$device") || return 1
    grep -q '^open  *false' <<<"$labels" || return 1
    if grep -q '^open  *true' <<<"$labels"; then return 1; fi
  done
}

after_umount() {
  local how=$1 source=/usr/share/doc
  [ -d "$source" ] || source=/usr/share
  new_pool
  pool_mount
  rm -rf "$WORK/source"
  mkdir "$WORK/source"
  # Not through a pipe: find would end with SIGPIPE, and with it this script.
  (cd "$source" && find . -type f -size -200k >"$WORK/list.all")
  head -n 2000 "$WORK/list.all" >"$WORK/list"
  rsync --archive --files-from="$WORK/list" "$source/" "$WORK/source/"
  head -c 90000000 /dev/urandom >"$WORK/source/large"
  cp -a "$WORK/source" "$WORK/mount/copy"
  if [ "$how" = isotherm ]; then "$ISOTHERM" umount "$WORK/mount"; else umount "$WORK/mount"; fi
  layer_cut
  on_platters
  if is_clean; then ok "power: clean after $how umount"; else not_ok "power: not clean after $how umount"; fi
  pool_mount
  expect_same "power: all there after $how umount" "$WORK/source" "$WORK/mount/copy" &&
    ok "power: all there after $how umount"
  pool_umount
  local index
  for index in "${!DISKS[@]}"; do detach_disk "$index"; done
}

under_load() {
  local round
  new_pool
  for ((round = 1; round <= rounds; round++)); do
    pool_mount_foreground || { not_ok "power: round $round does not mount"; return 0; }
    start_load "$round"
    sleep "$((RANDOM % 3 + 1)).$((RANDOM % 10))"
    touch "$LOG.cut"
    layer_cut
    kill_daemon
    after_cut
    on_platters
    if pool_mount_foreground; then
      judge "$round" "power cut $round of $rounds"
      pool_check "power cut $round of $rounds: check" --deep
      pool_umount
    else
      not_ok "power cut $round of $rounds: does not mount again"
      return 0
    fi
    local index
    for index in "${!DISKS[@]}"; do detach_disk "$index"; done
    layer_up
  done
  layer_down
}

# claims DEVICE: it can be opened for oneself alone; status 16 (EBUSY) if somebody has it.
claims() {
  timeout 10 python3 -c '
import os, sys
try: os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
except OSError as error: sys.exit(error.errno)' "$1"
}

# Whoever died with two disks hung holds those two, and no other.
holds_only_hung() {
  local index waited=0 status
  for index in "${!DISKS[@]}"; do
    status=0
    if [ "$index" = 2 ] || [ "$index" = 5 ]; then
      claims "${DISKS[index]}" || status=$?
      [ "$status" = 16 ] || { not_ok "power: hung disk $index is not held ($status): it never hung"; return 1; }
      continue
    fi
    until claims "${DISKS[index]}"; do
      sleep 0.1
      waited=$((waited + 1))
      [ "$waited" -lt 100 ] || { not_ok "power: disk $index is kept busy by a hung one"; return 1; }
    done
  done
  ok "power: killed with one disk hung in a read, one in a FLUSH: the other disks are free in $((waited * 100)) ms"
}

hung_disks() {
  new_pool
  pool_mount_foreground
  head -c 100000000 /dev/urandom >"$WORK/read"
  cp "$WORK/read" "$WORK/mount/read"
  pool_umount
  # Mounted again, so that nothing is cached: the load writes, and somebody must read.
  pool_mount_foreground
  start_load 90
  sleep 2
  touch "$WORK/control/disk2.hang-read" "$WORK/control/disk5.hang-flush"
  expect "power: read around a disk that hangs" cmp "$WORK/read" "$WORK/mount/read"
  sleep 2
  touch "$LOG.cut"
  kill -9 "$DAEMON"
  holds_only_hung || true
  after_cut
  local second=${DISKS[2]} fifth=${DISKS[5]} began
  DISKS[2]=''
  DISKS[5]=''
  began=$(now_ms)
  if pool_mount_foreground; then
    judge 90 "power: mounted without the two hung disks in $(($(now_ms) - began)) ms"
    pool_umount
  else
    not_ok "power: does not mount without the two hung disks"
  fi
  layer_cut
  DISKS[2]=$second DISKS[5]=$fifth
  layer_down
}

lying_disks() {
  local round faults
  for round in 91 92 93 94 95; do
    new_pool --lie
    pool_mount_foreground
    start_load "$round"
    sleep 3
    touch "$LOG.cut"
    layer_cut
    kill_daemon
    after_cut
    on_platters
    # All of them lied: what says where everything is may be lost as well.
    if pool_mount_foreground; then
      faults=0
      check_round "$round" || faults=$(grep -c FAULT "$WORK/check.$round" || true)
      pool_umount
    fi
    local index
    for index in "${!DISKS[@]}"; do detach_disk "$index"; done
    if [ "${faults:-0}" -gt 0 ]; then
      ok "power: disks that lie about FLUSH are found out in cut $((round - 90)): $faults faults"
      return 0
    fi
  done
  not_ok "power: disks that lie about FLUSH were not found out in five cuts"
}

after_umount isotherm
after_umount plain
under_load
hung_disks
lying_disks
