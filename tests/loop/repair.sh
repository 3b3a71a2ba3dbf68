#!/usr/bin/env bash
# A disk is lost under load, and the pool becomes fully redundant again by itself, killed three times on
# the way; then two other disks are taken away, and everything is there.
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
start_load 1
take_away 3
began=$(now_ms)
kills=0
while [ "$kills" -lt 3 ]; do
  # Somewhere in a pass; each next one has less to do.
  waited=0
  until [ "$(status running)" = 1 ] && [ "$(status objects_done)" -gt 2 ]; do
    sleep 0.05
    waited=$((waited + 1))
    [ "$waited" -lt 1200 ] || { not_ok "no repair goes on: $(status running) $(status objects_done)"; exit 1; }
  done
  say "killed after $(status objects_done) of $(status objects_total) objects"
  : >"$LOG.cut"
  kill -9 "$DAEMON"
  wait "$DAEMON" 2>/dev/null || true
  after_cut
  umount --lazy "$WORK/mount" 2>/dev/null || true
  kills=$((kills + 1))
  [ "$kills" -gt 1 ] || detach_disk 3
  pool_mount_foreground -o repair=4
  judge "$kills" "killed $kills times in a repair"
  [ "$kills" -ge 3 ] || start_load $((kills + 1))
done
start_load 4
if repaired 300; then
  say "$(status objects_done) objects, $(status bytes_done) bytes made anew in the last pass; $(($(now_ms) - began)) ms in all"
  ok "the pool is fully redundant again"
fi
kill "$LOAD" 2>/dev/null || true
wait "$LOAD" 2>/dev/null || true
pool_sync
pool_check "check of all shards" --deep
expect_same "repaired" "$WORK/source" "$WORK/mount/tree" && ok "repaired, compared"
pool_umount
detach_disk 0
detach_disk 6
pool_mount --read-only
expect_same "two others gone" "$WORK/source" "$WORK/mount/tree" && ok "two others gone, compared"
pool_umount
