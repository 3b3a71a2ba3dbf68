#!/usr/bin/env bash
# Public suites of what a POSIX file system must do, on a mounted pool.
#
#     tests/suites/posix.sh [--full]
#
# 1. pjdfstest: healthy, after a remount, and with two disks taken away. What it skips is compared
#    with pjdfstest.skipped.
# 2. fsx: random operations on one file beside a copy in memory: buffered, mapped, direct, with holes,
#    with copy_file_range. Short: 3,000 operations each; full: 100,000 with five seeds each.
# The suites come from crates.io and are kept below the target directory.
set -euo pipefail
# shellcheck source=tests/loop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loop/lib.sh"

full=false
[ "${1:-}" != --full ] || full=true
here=$ROOT/tests/suites
tools=${CARGO_TARGET_DIR:-$ROOT/target}/suites
# Of 398 tests of version 0.2.2, without those that are listed as skipped.
PJDFSTEST_PASSED=384
start posix

# install CRATE VERSION
install_suite() {
  cargo install --quiet --locked --root "$tools" --version "$2" "$1" >"$WORK/$1.log" 2>&1 ||
    { not_ok "posix: $1 $2 does not install: $(tail -n 3 "$WORK/$1.log" | tr '\n' ' ')"; exit 1; }
}

# --- pjdfstest -----------------------------------------------------------------------------------

prepare_pjdfstest() {
  # Its other users must reach the mount.
  chmod 711 "$WORK"
  cat >"$WORK/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.001
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
TOML
  # A second file system, for what must not go from one to another.
  mkdir "$WORK/second"
  mount -t tmpfs -o size=64m isotherm-posix "$WORK/second"
  MOUNTS+=("$WORK/second")
  awk '!/^#/ && NF { print $1 }' "$here/pjdfstest.skipped" | sort >"$WORK/skips.expected"
}

# run_pjdfstest NAME
run_pjdfstest() {
  local name=$1 log=$WORK/pjdfstest.$2 summary
  mkdir -p "$WORK/mount/pjdfstest"
  "$tools/bin/pjdfstest" --configuration-file "$WORK/pjdfstest.toml" --path "$WORK/mount/pjdfstest" \
    --secondary-fs "$WORK/second" >"$log" 2>&1 || true
  summary=$(grep -a '^Summary:' "$log" || echo "no summary: $(tail -n 2 "$log" | tr '\n' ' ')")
  awk '$2 == "skipped" { print $1 }' "$log" | sort >"$WORK/skips"
  if ! cmp --quiet "$WORK/skips" "$WORK/skips.expected"; then
    not_ok "$name: skipped others than listed: $(diff "$WORK/skips" "$WORK/skips.expected" | tr '\n' ' ')"
  elif grep -q "^Summary: 0 failed, .* $PJDFSTEST_PASSED passed, 0 expected failures" <<<"$summary"; then
    ok "$name: ${summary#Summary: }"
  else
    not_ok "$name: $summary: $(awk '$2 == "FAILED" { print $1 }' "$log" | tr '\n' ' ')"
  fi
}

# --- fsx -----------------------------------------------------------------------------------------

# weights NAME: what a kind of run does, as fsx's configuration. Weights not named keep their default.
weights() {
  printf 'flen = 1048576\n'
  case $1 in
    direct) printf '[opsize]\nalign = 512\nmax = 65536\n' ;;
    *) printf '[opsize]\nmax = 65536\n' ;;
  esac
  printf '[weights]\nclose_open = 1\ninvalidate = 1\nread = 10\nwrite = 10\ntruncate = 10\n'
  case $1 in
    buffered) printf 'mapread = 0\nmapwrite = 0\nfsync = 1\nfdatasync = 1\n' ;;
    mapped) printf 'mapread = 10\nmapwrite = 20\nfsync = 1\n' ;;
    direct) printf 'mapread = 0\nmapwrite = 0\nfsync = 1\n' ;;
    holes) printf 'mapread = 5\nmapwrite = 5\npunch_hole = 15\nposix_fallocate = 5\n' ;;
    copies) printf 'mapread = 5\nmapwrite = 5\ncopy_file_range = 15\nsendfile = 3\n' ;;
  esac
}

# run_fsx NAME OPERATIONS SEED...
run_fsx() {
  local name=$1 operations=$2 seed log preload='' count=0
  shift 2
  weights "$name" >"$WORK/fsx.$name.toml"
  [ "$name" != direct ] || preload=$WORK/direct.so
  mkdir -p "$WORK/mount/fsx" "$WORK/artifacts"
  for seed; do
    log=$WORK/fsx.$name.$seed
    if ! LD_PRELOAD=$preload DIRECT_BELOW=$WORK/mount DIRECT_LOG=$WORK/direct.$seed "$tools/bin/fsx" -f "$WORK/fsx.$name.toml" \
      -N "$operations" -S "$seed" -P "$WORK/artifacts" "$WORK/mount/fsx/$name.$seed" >"$log" 2>&1; then
      not_ok "fsx $name: fsx seed $seed: $(tail -n 3 "$log" | tr '\n' ' ')"
      return 0
    fi
    # Whoever means to go around the cache must have done so.
    if [ "$name" = direct ] && [ "$(cat "$WORK/direct.$seed" 2>/dev/null)" != direct ]; then
      not_ok "fsx $name: seed $seed: the file was not opened with O_DIRECT"
      return 0
    fi
    count=$((count + 1))
  done
  ok "fsx $name: $operations operations with $count seeds"
}

install_suite pjdfstest 0.2.2
install_suite fsx 0.3.2
cc -shared -fPIC -O2 -o "$WORK/direct.so" "$here/direct.c"
prepare_pjdfstest
make_disks 1000 1100 1200 1300 1400 1500
pool_create "posix$$"

pool_mount
run_pjdfstest "pjdfstest, healthy" healthy
for kind in buffered mapped direct holes copies; do
  if $full; then
    run_fsx "$kind" 100000 "$SEED" $((SEED + 1)) $((SEED + 2)) $((SEED + 3)) $((SEED + 4))
  else
    run_fsx "$kind" 3000 "$SEED"
  fi
done
pool_umount
pool_mount
run_pjdfstest "pjdfstest, after a remount" remount
take_away 1
take_away 4
run_pjdfstest "pjdfstest, two disks gone" gone
pool_umount
