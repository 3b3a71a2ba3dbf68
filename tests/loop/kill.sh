#!/usr/bin/env bash
# The daemon is killed with kill -9 at random moments under a mixed load. What had been synced must be
# there after the next mount, the rest must be a state that could have been (see check.rs), and
# what was there once must stay. The log of what was synced lies outside the pool.
#
#     tests/loop/kill.sh [ROUNDS]
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${1:-8}
start kill
need_loop_program
make_disks 600 700 800 900 1000 1100 1200 1400
pool_create "kill$$"

for ((round = 1; round <= rounds; round++)); do
  pool_mount_foreground || { not_ok "kill $round: no mount"; exit 1; }
  start_load "$round"
  pause=$((RANDOM % 4000 + 100))
  sleep "$((pause / 1000)).$(printf %03d $((pause % 1000)))"
  touch "$LOG.cut"
  kill_daemon
  after_cut
  # KEEP=1: what the daemon left on the disks stays to look at if this round fails.
  if [ "${KEEP:-}" = 1 ]; then
    mkdir -p "$WORK/before"
    cp --sparse=always "$WORK"/disk* "$WORK/before/"
  fi
  began=$(now_ms)
  if ! pool_mount_foreground; then
    not_ok "kill $round of $rounds: does not mount again"
    exit 1
  fi
  took=$(($(now_ms) - began))
  judge "$round" "kill $round of $rounds after $pause ms, mounted in $took ms"
  pool_check "kill $round of $rounds: check"
  if [ "${KEEP:-}" = 1 ] && [ "$FAILED" -gt 0 ]; then exit 1; fi
  # Every second round goes on from a clean unmount, the others from a second kill while idle.
  if [ $((round % 2)) = 0 ]; then
    pool_umount
  else
    kill_daemon
  fi
done

pool_mount
pool_check "kill: check of all shards" --deep
pool_umount

# The checker must see a fault in this very pool, or its silence means nothing.
pool_mount
"$LOOP_PROGRAM" plant "$WORK/mount/r$rounds" "$WORK/log.$rounds"
if check_round "$rounds"; then not_ok "kill: an altered file is not seen"; else ok "kill: an altered file is seen"; fi
pool_umount
