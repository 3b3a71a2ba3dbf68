#!/usr/bin/env bash
# A full pool: ENOSPC at the right call and nothing lost, deleting works, space comes back, kill -9 in
# between; and a file of a quarter of its pool, overwritten in order and at random again and again, never
# fills it.
#
#     tests/loop/full.sh [--full [TIMES]]
#
# In full: 4 GiB can be used, and a file of 1 GiB is overwritten TIMES times (100) each way. In short: a small
# pool, a quarter of it, 4 times, and the tables that said what is deleted are not waited for.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

times=4 patience=10 least=95
sizes=(260 260 280 280 300)
if [ "${1:-}" = --full ]; then
  times=${2:-100} patience=150 least=98
  sizes=(800 800 830 830 860 860 900 900)
fi
start full
make_disks "${sizes[@]}"
pool_create "full$$"

fill() { SEED=$SEED python3 "$ROOT/tests/loop/fill.py" "$@"; }
available() { echo $(($(stat --file-system --format '%a * %S' "$WORK/mount"))); }
mib() { echo $(($1 >> 20)); }

# expect_number NAME COMMAND...: prints nothing; the number that the command printed is NUMBER.
expect_number() {
  local name=$1
  shift
  NUMBER=$("$@" 2>"$WORK/error") && return 0
  not_ok "$name: $(tail -n 2 "$WORK/error" | tr '\n' ' ')"
  exit 1
}

# expect_percent NAME PART WHOLE LEAST
expect_percent() {
  local percent=$(($2 * 100 / $3))
  if [ "$percent" -ge "$4" ]; then
    ok "$1: $percent % ($(mib "$2") of $(mib "$3") MiB)"
  else
    not_ok "$1: $percent %, less than $4 % ($(mib "$2") of $(mib "$3") MiB)"
  fi
}

pool_mount_foreground
at_first=$(available)
expect_number "full: fill" fill fill "$WORK/mount" a 49152
accepted=$NUMBER
expect_percent "full: of what df promised was accepted before ENOSPC" "$accepted" "$at_first" 93
expect_number "full: check" fill check "$WORK/mount"
[ "$NUMBER" = $((accepted / 49152)) ] || not_ok "full: $NUMBER files of $((accepted / 49152))"

expect_number "full: thin" fill thin "$WORK/mount"
freed=$NUMBER
expect_number "full: fill again" fill fill "$WORK/mount" b 1048576
expect_percent "full: of what was deleted could be written again" "$NUMBER" "$freed" 90
left=$(((accepted - freed) / 49152 + NUMBER / 1048576))
expect_number "full: check again" fill check "$WORK/mount"
[ "$NUMBER" = "$left" ] || not_ok "full: $NUMBER files of $left"

# Killed while it is full and half of it is being deleted; what is in it was synced.
pool_sync
fill list "$WORK/mount" >"$WORK/names"
fill thin "$WORK/mount" >/dev/null 2>&1 &
sleep 0.3
kill_daemon
wait "$!" 2>/dev/null || true
pool_mount_foreground
expect "full: what is there after kill -9 is whole" fill check "$WORK/mount"
expect "full: nothing else is gone" fill kept "$WORK/mount" "$WORK/names"
pool_check "full: check of all shards" --deep

find "$WORK/mount" -mindepth 1 -delete
pool_sync
# The tables that said what is deleted go with the next checkpoints.
for _ in $(seq "$patience"); do
  now=$(available)
  [ $((now * 100)) -lt $((at_first * 99)) ] || break
  sleep 1
done
say "full: available after $SECONDS s: $(mib "$now") of $(mib "$at_first") MiB"
expect_percent "full: available when all is deleted" "$now" "$at_first" "$least"

quarter=$(mib $((at_first / 4)))
for order in in-order random; do
  before=$(bytes_of_disks 7)
  expect_number "full: overwrite $order" fill overwrite "$WORK/mount/$order" "$quarter" "$times" "$order"
  pool_sync
  to_disks=$(($(bytes_of_disks 7) - before))
  ratio=$(awk -v d="$to_disks" -v u="$NUMBER" 'BEGIN { printf "%.2f", d / u }')
  if [ "$to_disks" -lt $((3 * NUMBER)) ]; then
    ok "full: $quarter MiB overwritten $order $times times: $ratio bytes to the disks for each"
  else
    not_ok "full: $order: $ratio bytes to the disks for each one written"
  fi
done
pool_check "full: check after that" --deep
pool_umount
