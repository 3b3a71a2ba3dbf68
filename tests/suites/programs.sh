#!/usr/bin/env bash
# Programs that people run, on a mounted pool: what they promise must hold there, crashes included.
#
#     tests/suites/programs.sh [--full] [PART...]        parts: sqlite postgres loads cpython git trees
#
# 1. sqlite: writers in WAL and rollback mode, kill -9 of the daemon; no committed row is lost.
# 2. postgres: pgbench on a cluster with checksums, kill -9 of daemon and server; balances agree.
# 3. loads: stress-ng, dbench, bonnie++ and fio, which check what they read.
# 4. cpython: CPython's own tests of files; what differs from the host's file system is listed.
# 5. git: clone, gc, fsck; kill -9 between commits that core.fsync covers.
# 6. trees: cp, tar and rsync with links, holes, attributes and ACLs, there and back.
# In the full form every third mount after a kill is one without two of the disks.
# Each part ends with a deep check of the pool, no error in the daemon's log, and its peak memory.
# What is missing is installed with apt-get. Short: a minute; full: twenty minutes, both
# on two cores that have nothing else to do.
# shellcheck disable=SC2034 # the parts look at `full`
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loop/lib.sh"

full=false
parts=()
for argument in "$@"; do
  case $argument in
    --full) full=true ;;
    sqlite | postgres | loads | cpython | git | trees) parts+=("$argument") ;;
    *)
      sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
done
[ "${#parts[@]}" -gt 0 ] || parts=(sqlite postgres loads cpython git trees)

here=$ROOT/tests/suites/programs
python=/usr/bin/python3
[ -x "$python" ] || python=python3
# With it set, messages have other marks than those looked for here.
unset JOURNAL_STREAM

for part in sqlite postgres loads cpython git trees; do
  # shellcheck disable=SC1090
  source "$here/$part.sh"
done

# --- what a part needs ---------------------------------------------------------------------------

# need COMMAND PACKAGE: installs the package if the command does not succeed; then it must.
need() {
  bash -c "$1" >/dev/null 2>&1 && return 0
  if command -v apt-get >/dev/null; then
    say "installing $2"
    {
      apt-get update --quiet || true
      DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$2"
    } >>"$WORK/apt.log" 2>&1 || true
  fi
  bash -c "$1" >/dev/null 2>&1 && return 0
  not_ok "$PART: cannot run: '$1' fails, and the package $2 does not mend it"
  return 1
}

# must_fail NAME COMMAND...: the judge sees what was planted, or its silence means nothing.
must_fail() {
  local name=$1
  shift
  if "$@" >/dev/null 2>&1; then not_ok "$name: it is not"; else ok "$name"; fi
}

# --- processes -----------------------------------------------------------------------------------

# forget_pid PID: it has ended, and its number may be another's soon.
forget_pid() {
  local kept=() entry
  for entry in "${PIDS[@]}"; do [ "$entry" = "$1" ] || kept+=("$entry"); done
  PIDS=("${kept[@]}")
}

# end_pid PID [SECONDS]: waits for one of ours to end by itself, then kills it.
end_pid() {
  local waited=0
  while kill -0 "$1" 2>/dev/null && [ "$waited" -lt $((${2:-20} * 10)) ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  kill -9 "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  forget_pid "$1"
}

# pause FROM TO: as many milliseconds, at random; PAUSED says how many.
pause() {
  PAUSED=$((RANDOM % ($2 - $1) + $1))
  sleep "$((PAUSED / 1000)).$(printf %03d $((PAUSED % 1000)))"
}

# --- the daemon, part by part --------------------------------------------------------------------

mount_pool() {
  pool_mount_foreground && return 0
  not_ok "$PART: the pool does not mount"
  exit 1
}

# mount_after_kill: in the full form without two of the disks, one time in three; WITHOUT says which.
mount_after_kill() {
  local index
  WITHOUT=
  if $full && [ $((RANDOM % 3)) = 0 ]; then
    index=$((RANDOM % 8))
    for index in "$index" $(((index + 1 + RANDOM % 7) % 8)); do
      detach_disk "$index"
      probe_detached "$index"
      WITHOUT+=" $index"
      EXPECTED+="|disk $index is missing\$"
    done
    WITHOUT=", without disks$WITHOUT"
  fi
  mount_pool
}

# all_disks_back: the next mount takes them in again.
all_disks_back() {
  [ -n "$WITHOUT" ] || return 0
  pool_umount
  attach_disks
  mount_pool
}

begin_part() {
  PART=$1
  PEAK_MIB=0
  EXPECTED='^isotherm: (warn|info|debug|trace): '
  BEGAN=$SECONDS
  LOG_LINES=$(wc -l <"$WORK/daemon.log")
  IN=$WORK/mount/$1
  OUT=$WORK/$1
  mount_pool
  mkdir -p "$IN" "$OUT"
}

# end_part: the pool after it. The next part finds it without the files of this one.
end_part() {
  local errors
  pool_check "$PART: check of all shards" --deep
  expect "$PART: what it left is deleted" rm -rf "$IN"
  pool_umount
  # An error has no level before it. A disk that was taken away is rightly one.
  errors=$(tail -n "+$((LOG_LINES + 1))" "$WORK/daemon.log" |
    grep -aE '^isotherm: |panicked' | grep -avE "$EXPECTED" || true)
  if [ -z "$errors" ]; then ok "$PART: no error in the daemon's log"; else
    not_ok "$PART: the daemon's log: $(head -n 3 <<<"$errors" | tr '\n' ' ')"
  fi
  peak_is_bounded "$PART: $((SECONDS - BEGAN)) s"
  PEAK_MIB=0
}

start programs
# Other users, as the server of PostgreSQL, must reach the mount.
chmod 711 "$WORK"
cd "$WORK"
: >"$WORK/daemon.log"
make_disks 1200 1400 1600 1800 2000 2200 2500 3000
pool_create "programs$$"
for part in "${parts[@]}"; do
  begin_part "$part"
  "part_$part"
  end_part
done
