#!/usr/bin/env bash
# A disk is lost under load, and the pool becomes fully redundant again by itself, killed twice on the way;
# then two other disks are taken away, and everything is there. The same for a disk that is replaced under
# load, killed three times.
#
#     tests/loop/repair.sh [--full]
#
# Short: some 1.2 GB. Full: some 2 GB.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

full=false
[ "${1:-}" != --full ] || full=true
start repair
need_loop_program

# status FIELD: a number of the pool's repair status.
status() {
  local text
  text=$("$ISOTHERM" status --json "$WORK/mount" 2>/dev/null) || true
  python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["repair"][sys.argv[1]] + 0)' "$1" <<<"$text"
}

# repaired SECONDS: waits until a pass has ended and nothing waits.
repaired() {
  local waited=0
  while [ "$(status running)" != 0 ] || [ "$(status waiting)" != 0 ] || ! given_up; do
    sleep 0.5
    waited=$((waited + 1))
    if [ "$waited" -gt $(($1 * 2)) ]; then
      not_ok "repair does not end: $("$ISOTHERM" status "$WORK/mount" | grep -E 'repair|GIVEN' | tr '\n' ' ')"
      return 1
    fi
  done
}

given_up() {
  local text
  text=$("$ISOTHERM" status --json "$WORK/mount" 2>/dev/null) || true
  grep -q '"given-up"' <<<"$text"
}

# Sources that differ in size and number, all below one directory.
source_tree() {
  local toolchain
  toolchain=$(rustc --print sysroot)
  mkdir "$WORK/source"
  cp -a "$toolchain/libexec" /usr/share/zoneinfo /usr/share/perl "$WORK/source/" 2>/dev/null || true
  cp -a "$toolchain/bin" "$WORK/source/bin"
  if $full; then cp -a "$toolchain/lib" "$WORK/source/lib"; fi
  for number in 1 2 3 4 5; do head -c 200000000 /dev/urandom >"$WORK/source/random$number"; done
}

source_tree
bytes=$(du -s -B1 "$WORK/source" | cut -f1)
say "repair: $bytes bytes, $(find "$WORK/source" -type f | wc -l) files"
size=$((bytes / 1048576 / 3 + 300))
make_disks $((size)) $((size * 11 / 10)) $((size * 12 / 10)) $((size * 13 / 10)) \
  $((size)) $((size * 11 / 10)) $((size * 12 / 10)) $((size * 13 / 10))
pool_create "repair$$" ec:4+2
pool_mount_foreground -o repair=4
cp -a "$WORK/source/." "$WORK/mount/tree"
pool_sync

# in_a_pass: shards are being moved, and some were.
in_a_pass() {
  local text
  text=$("$ISOTHERM" status --json "$WORK/mount" 2>/dev/null) || true
  [[ $text =~ \"running\":\ true ]] && [[ $text =~ \"objects_done\":\ ([0-9]+) ]] &&
    [ "${BASH_REMATCH[1]}" -gt 2 ]
}

# killed NAME TIMES ROUND COMMAND...: under load, kills the daemon so often while shards are moved, and
# looks at what was synced each time. COMMAND begins it; the load's rounds count from ROUND.
killed() {
  local name=$1 times=$2 round=$3 kills=0 waited
  shift 3
  start_load "$round"
  "$@"
  while [ "$kills" -lt "$times" ]; do
    # Somewhere in a pass; each next one has less to do.
    waited=0
    until in_a_pass; do
      sleep 0.01
      waited=$((waited + 1))
      if [ "$waited" -ge 1500 ]; then
        not_ok "$name: nothing is moved: $(status running) $(status objects_done)"
        return 1
      fi
    done
    say "$name: killed after $(status objects_done) of $(status objects_total) objects"
    : >"$LOG.cut"
    kill_daemon
    after_cut
    umount --lazy "$WORK/mount" 2>/dev/null || true
    kills=$((kills + 1))
    [ "${LOST:-}" = "" ] || { detach_disk "$LOST"; LOST=; }
    # Looked at without going on: a pass would be over by then.
    pool_mount_foreground --read-only
    if check_round "$round"; then
      ok "$name: killed $kills times: $(sed -n 's/^check: //p' "$WORK/check.$round")"
    else
      not_ok "$name: killed $kills times: $(grep -m 3 FAULT "$WORK/check.$round" | tr '\n' ' ')"
    fi
    pool_umount
    pool_mount_foreground -o repair=4
    rm -rf "$WORK/mount/r$round"
    round=$((round + 1))
    start_load "$round"
  done
}

end_load() {
  kill "$LOAD" 2>/dev/null || true
  wait "$LOAD" 2>/dev/null || true
  pool_sync
}

# all_there NAME DISK DISK: everything is whole, and still there when these two are gone.
all_there() {
  pool_check "$1: check of all shards" --deep
  expect_same "$1" "$WORK/source" "$WORK/mount/tree" && ok "$1: compared"
  pool_umount
  detach_disk "$2"
  detach_disk "$3"
  if pool_mount --read-only; then
    expect_same "$1, two others gone" "$WORK/source" "$WORK/mount/tree" &&
      ok "$1: two others gone, compared"
    pool_umount
  else
    not_ok "$1: does not mount without two others: $(tail -n 2 "$WORK/mount.log" | tr '\n' ' ')"
  fi
}

lose() { LOST=$1; take_away "$1"; }

# is_member INDEX
is_member() {
  local text
  text=$("$ISOTHERM" disk list "$WORK/mount" --json 2>/dev/null) || return 0
  python3 -c 'import json,sys; sys.exit(all(d["index"] != int(sys.argv[1]) for d in json.load(sys.stdin)))' \
    "$1" <<<"$text"
}

began=$(now_ms)
killed lost 2 1 lose 3
if repaired 300; then ok "lost: fully redundant again, $(status bytes_done) bytes in the last pass"; fi
end_load
say "lost: $(($(now_ms) - began)) ms in all"
all_there lost 0 6

# The lost one stays away; disk 1 is replaced by a new one.
for index in 0 6; do attach "$WORK/disk$index"; DISKS[index]=$ATTACHED; done
truncate --size "$((size * 12 / 10))M" "$WORK/disk8"
attach "$WORK/disk8"
NEW=$ATTACHED
pool_mount_foreground -o repair=4
replace() {
  "$ISOTHERM" disk replace "$WORK/mount" 1 "$NEW" --no-wait >"$WORK/replace.log" 2>&1 ||
    not_ok "replace: $(cat "$WORK/replace.log")"
  DISKS[8]=$NEW
}
began=$(now_ms)
killed replaced 3 10 replace
waited=0
while is_member 1 && [ "$waited" -lt 600 ]; do
  sleep 0.5
  waited=$((waited + 1))
done
if is_member 1; then not_ok "replaced: disk 1 stays: $("$ISOTHERM" status "$WORK/mount" | grep repair)"; else
  ok "replaced: disk 1 is no member any more"
fi
end_load
say "replaced: $(($(now_ms) - began)) ms in all"
pool_umount
detach_disk 1
pool_mount
# Two others than what took its place, which counts as well as they.
all_there replaced 4 6
