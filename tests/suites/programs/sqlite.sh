# shellcheck shell=bash
# SQLite: two writers a database, one database in WAL mode and one in a rollback mode, at once.
# shellcheck disable=SC2154

# sqlite_writers MODE: starts two on the database of this mode.
sqlite_writers() {
  local writer
  # By one alone: of two that turn a database to WAL at once one may be refused without waiting.
  "$python" "$here/sqlite.py" create "$IN/$1.db" "$1"
  for writer in a b; do
    "$python" "$here/sqlite.py" write "$IN/$1.db" "$1" "$writer" "$OUT/$1.$writer" \
      >"$OUT/$1.$writer.out" 2>&1 &
    WRITERS+=("$!")
    PIDS+=("$!")
  done
}

sqlite_check() {
  "$python" "$here/sqlite.py" check "$IN/$1.db" "a=$OUT/$1.a" "b=$OUT/$1.b"
}

# sqlite_await MODE: until both have committed something, so that the pause is one of work.
sqlite_await() {
  local waited=0
  until [ -s "$OUT/$1.a" ] && [ -s "$OUT/$1.b" ] || [ "$waited" -ge 300 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
}

# sqlite_round ROUND MODE
sqlite_round() {
  local writer mode told='' found died=''
  WRITERS=()
  sqlite_writers wal
  sqlite_writers "$2"
  sqlite_await wal
  sqlite_await "$2"
  pause 300 "$SQLITE_PAUSE_MAX"
  for writer in "${WRITERS[@]}"; do kill -0 "$writer" 2>/dev/null || died=yes; done
  kill_daemon
  for writer in "${WRITERS[@]}"; do end_pid "$writer"; done
  if [ -n "$died" ]; then
    not_ok "sqlite $1: a writer ended early: $(tail -q -n 1 "$OUT"/*.out | tr '\n' ' ')"
  fi
  mount_after_kill
  for mode in wal "$2"; do
    if ! found=$(sqlite_check "$mode" 2>&1); then
      not_ok "sqlite $1, $mode, killed after $PAUSED ms$WITHOUT: $(tail -n 1 <<<"$found")"
      return 0
    fi
    told+="$mode $found, "
  done
  ok "sqlite $1: ${told}killed after $PAUSED ms$WITHOUT"
  all_disks_back
}

part_sqlite() {
  local rounds=2 round modes=(delete truncate persist)
  SQLITE_PAUSE_MAX=1500
  if $full; then rounds=24 SQLITE_PAUSE_MAX=5000; fi
  need "$python -c 'import sqlite3'" python3 || return 0
  for ((round = 1; round <= rounds; round++)); do
    sqlite_round "$round of $rounds" "${modes[RANDOM % 3]}"
  done
  "$python" - "$IN/wal.db" <<'PYTHON'
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("DELETE FROM rows WHERE rowid = (SELECT max(rowid) FROM rows)")
PYTHON
  must_fail "sqlite: a lost row is seen" sqlite_check wal
}
