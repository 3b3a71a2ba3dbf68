#!/usr/bin/env bash
# A disk is unplugged under load and plugged in again: it takes part again by itself, with everything that it
# had, while the load goes on; the daemon is killed while that happens. A disk that was taken out by hand is
# plugged in elsewhere and taken back by hand. Then two other disks are taken away, and everything is there.
# In between three of six go at once, and all six: whoever writes waits until they are back.
#
#     tests/loop/comeback.sh [--full]
#
# Short: twice. Full: ten times, with a kill after every other one.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

times=2
[ "${1:-}" != --full ] || times=10
start comeback
need_loop_program

# disk_field INDEX FIELD: what the daemon says of a disk; nothing if it does not answer.
disk_field() {
  local text
  text=$("$ISOTHERM" status --json "$WORK/mount" 2>/dev/null) || true
  python3 -c '
import json, sys
pools = json.load(sys.stdin)
print(next(d for d in pools[0]["disks"] if d["index"] == int(sys.argv[1]))[sys.argv[2]])' \
    "$1" "$2" <<<"$text" 2>/dev/null || true
}

# until_state INDEX STATE TENTHS
until_state() {
  local waited=0
  until [ "$(disk_field "$1" state)" = "$2" ]; do
    sleep 0.1
    waited=$((waited + 1))
    [ "$waited" -lt "$3" ] || return 1
  done
}

# unplug INDEX...: as take_away, all at once, and what is on them stays, as of one moment: nobody writes while
# it is copied, and what the kernel was given before is written.
unplug() {
  local reads writes index quiet=0
  kill -STOP "$DAEMON"
  while [ "$quiet" -lt 4 ]; do
    sleep 0.05
    quiet=$((quiet + 1))
    for index; do
      read -r reads writes <"/sys/block/${DISKS[index]##*/}/inflight"
      [ $((reads + writes)) = 0 ] || quiet=0
    done
  done
  for index; do cp --sparse=always "$WORK/disk$index" "$WORK/kept$index"; done
  for index; do
    truncate --size 0 "$WORK/disk$index"
    losetup --set-capacity "${DISKS[index]}"
  done
  kill -CONT "$DAEMON"
}

# plug INDEX: it is back where it was.
plug() {
  truncate --size "$(stat --format %s "$WORK/kept$1")" "$WORK/disk$1"
  dd if="$WORK/kept$1" of="$WORK/disk$1" bs=1M conv=notrunc,sparse status=none
  rm -f "$WORK/kept$1"
  losetup --set-capacity "${DISKS[$1]}"
}

end_load() {
  kill "$LOAD" 2>/dev/null || true
  wait "$LOAD" 2>/dev/null || true
  pool_sync
}

sizes=(500 500 550 550 600 600)
make_disks "${sizes[@]}"
pool_create "comeback$$" ec:3+2
mkdir "$WORK/source"
cp -a /usr/share/zoneinfo /usr/share/perl "$WORK/source/" 2>/dev/null || true
for number in 1 2 3; do head -c 150000000 /dev/urandom >"$WORK/source/random$number"; done
pool_mount_foreground
cp -a "$WORK/source/." "$WORK/mount/tree"
pool_sync

# --- by itself -----------------------------------------------------------------------------------

for ((round = 1; round <= times; round++)); do
  # Each twice.
  [ $((round % 2)) = 0 ] || disk=$((RANDOM % 6))
  start_load "$round"
  sleep 1
  unplug "$disk"
  if ! until_state "$disk" failed 300; then
    not_ok "back $round of $times: disk $disk is $(disk_field "$disk" state), not failed"
    exit 1
  fi
  plug "$disk"
  if ! until_state "$disk" active 300; then
    not_ok "back $round of $times: disk $disk is $(disk_field "$disk" state): $(grep "disk $disk " "$WORK/daemon.log" |
      tail -n 5 | tr '\n' ' ')"
    exit 1
  fi
  if [ $((round % 2)) = 0 ]; then
    # While it gets what it missed.
    sleep "0.$((RANDOM % 10))"
    : >"$LOG.cut"
    kill_daemon
    after_cut
    umount --lazy "$WORK/mount" 2>/dev/null || true
    pool_mount_foreground
    how="killed then"
  else
    sleep 2
    end_load
    : >"$LOG.cut"
    how="stayed"
  fi
  judge "$round" "back $round of $times: disk $disk, $how"
  pool_check "back $round of $times: check" --deep
  forget_round "$round"
done

# --- more than may be lost, at once --------------------------------------------------------------

# together ROUND INDEX...: a cable with several disks on it is pulled under load, and put back. Whoever writes waits.
together() {
  local round=$1 index
  shift
  start_load "$round"
  sleep 2
  unplug "$@"
  # Of some nothing is asked any more once writing waits, and that is for two minutes.
  until_state "$1" failed 100 || say "disk $1 is $(disk_field "$1" state) still"
  sleep 3
  for index; do plug "$index"; done
  for index; do
    if ! until_state "$index" active 300; then
      not_ok "$# at once: disk $index is $(disk_field "$index" state): $(grep "disk $index " "$WORK/daemon.log" |
        tail -n 5 | tr '\n' ' ')"
      exit 1
    fi
  done
  sleep 3
  if kill -0 "$LOAD" 2>/dev/null; then ok "$# at once: whoever wrote went on"; else not_ok "$# at once: the load ended"; fi
  end_load
  : >"$LOG.cut"
  judge "$round" "$# at once"
  # Any two may go, whatever was written meanwhile.
  pool_check "$# at once: check" --deep
  forget_round "$round"
}

together 101 1 3 5
together 102 0 1 2 3 4 5

# --- by hand, elsewhere --------------------------------------------------------------------------

pool_umount
# By its name, so that it is looked for everywhere.
"$ISOTHERM" mount "comeback$$" "$WORK/mount" >>"$WORK/mount.log" 2>&1
had=$(disk_field 1 used_bytes)
expect "by hand: offline" "$ISOTHERM" disk offline "$WORK/mount" 1
expect "by hand: offline, and it is written on" cp -a "$WORK/source/random1" "$WORK/mount/more"
pool_sync
if "$ISOTHERM" disk online "$WORK/mount" 1 >"$WORK/online.log" 2>&1 && [ "$(disk_field 1 state)" = active ]; then
  ok "by hand: online, where it was"
else
  not_ok "by hand: online: $(cat "$WORK/online.log")"
fi
expect "by hand: offline again" "$ISOTHERM" disk offline "$WORK/mount" 1
losetup --detach "${DISKS[1]}"
mv "$WORK/disk1" "$WORK/elsewhere"
if "$ISOTHERM" disk online "$WORK/mount" 3 >"$WORK/online.log" 2>&1 && grep -q already "$WORK/online.log"; then
  ok "by hand: one that takes part"
else
  not_ok "by hand: one that takes part: $(cat "$WORK/online.log")"
fi
attach "$WORK/elsewhere"
if [ "$ATTACHED" = "${DISKS[1]}" ]; then say "it has the same name again"; fi
old=${DISKS[1]}
DISKS[1]=$ATTACHED
if "$ISOTHERM" disk online "$WORK/mount" 1 >"$WORK/online.log" 2>&1 && grep -q "$ATTACHED" "$WORK/online.log"; then
  ok "by hand: online as $ATTACHED, it was $old"
else
  not_ok "by hand: online as $ATTACHED: $(cat "$WORK/online.log")"
fi
expect "by hand: compared" cmp "$WORK/source/random1" "$WORK/mount/more"
pool_sync
pool_check "by hand: check" --deep
# It missed a file of 150 MB, which the others have; it is read from, and given what is new.
wrote=$(disk_field 1 written_bytes)
if [ "$wrote" -lt $((had / 8)) ] && [ "$had" -gt 50000000 ]; then
  ok "by hand: it was given $wrote bytes, of $had that it had"
else
  not_ok "by hand: it was given $wrote bytes, of $had that it had"
fi

# --- it counts -----------------------------------------------------------------------------------

# What was short of a disk meanwhile is whole again.
waited=0
while [[ $("$ISOTHERM" status "$WORK/mount") =~ repair ]] && [ "$waited" -lt 300 ]; do
  sleep 0.2
  waited=$((waited + 1))
done
pool_umount
detach_disk 0
detach_disk 4
if pool_mount --read-only; then
  expect_same "two others gone" "$WORK/source" "$WORK/mount/tree" && ok "two others gone: compared"
  expect "two others gone: what was written while it was away" cmp "$WORK/source/random1" "$WORK/mount/more"
  pool_umount
else
  not_ok "does not mount without two others: $(tail -n 2 "$WORK/mount.log" | tr '\n' ' ')"
fi
