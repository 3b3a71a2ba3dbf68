# shellcheck shell=bash
# PostgreSQL: pgbench on a cluster with checksums. The daemon is killed, then the server, whose files are
# gone; after the remount the server recovers by itself, and what pgbench was told of is there.
# shellcheck disable=SC2154

PG_CLIENTS=4

# It refuses to run as root.
declare -a AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --clear-groups)

sql() { "$PG/psql" --host="$PG_SOCKET" --username=postgres --no-psqlrc -qAt -d bench -c "$1"; }

# postgres_start WAL_SYNC_METHOD: returns when it answers; that is when it has recovered. Its number is
# SERVER, its log PG_LOG.
postgres_start() {
  local waited=0
  PG_STARTS=$((PG_STARTS + 1))
  PG_LOG=$OUT/server.$PG_STARTS
  "${AS_POSTGRES[@]}" "$PG/postgres" -D "$IN/data" -c listen_addresses= \
    -c unix_socket_directories="$PG_SOCKET" -c shared_buffers=16MB -c max_wal_size=64MB \
    -c checkpoint_timeout=30s -c wal_sync_method="$1" >"$PG_LOG" 2>&1 &
  SERVER=$!
  PIDS+=("$SERVER")
  until "$PG/pg_isready" --quiet --host="$PG_SOCKET"; do
    if ! kill -0 "$SERVER" 2>/dev/null || [ "$waited" -ge 1200 ]; then
      say "the server does not start: $(tail -n 3 "$PG_LOG" | tr '\n' ' ')"
      return 1
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
}

postgres_stop() {
  kill -INT "$SERVER"
  end_pid "$SERVER" 60
}

# postgres_kill: the server, and the children it has at this moment.
postgres_kill() {
  local children child
  children=$(cat "/proc/$SERVER/task/$SERVER/children" 2>/dev/null || true)
  kill -9 "$SERVER" 2>/dev/null || true
  for child in $children; do kill -9 "$child" 2>/dev/null || true; done
  end_pid "$SERVER" 1
}

# postgres_marks ROUND: per client, how many pgbench was told of are not more than are there, and what is
# there has no gap. Prints how many were told.
postgres_marks() {
  local client there count told total=0 wrong=''
  while IFS='|' read -r client there count; do
    told=$(cat "$OUT/told.$1".* | awk -v client="$client" '$1 == client { n++ } END { print n + 0 }')
    total=$((total + told))
    if [ "$there" != "$count" ] || [ "$told" -gt "$there" ] || [ "$there" -gt $((told + 1)) ]; then
      wrong+="client $client: told of $told, found $count up to $there; "
    fi
  done < <(sql "SELECT c, coalesce(max(n), 0), count(n) FROM generate_series(0, $PG_CLIENTS - 1) c
    LEFT JOIN marks ON client = c AND run = $1 GROUP BY c")
  [ "$total" -gt 0 ] || wrong+="nothing was committed"
  printf '%s\n' "${wrong:-$total transactions}"
  [ -z "$wrong" ]
}

# postgres_balances: they agree with one another, and the history with the marks of all rounds.
postgres_balances() {
  local sums
  sums=$(sql "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
    (SELECT count(*) FROM pgbench_history), (SELECT count(*) FROM marks)")
  awk -F'|' '$1 == $2 && $2 == $3 && $3 == $4 && $5 == $6 && NF == 6 { agree = 1 } END { exit !agree }' \
    <<<"$sums" || { echo "they do not agree: $sums"; return 1; }
}

postgres_sound() {
  "$PG/pg_amcheck" --host="$PG_SOCKET" --username=postgres --database=bench --install-missing \
    --heapallindexed --no-strict-names
}

postgres_checksums() { "${AS_POSTGRES[@]}" "$PG/pg_checksums" --check -D "$IN/data"; }

# postgres_await ROUND: until something is committed, so that the pause is one of work.
postgres_await() {
  local waited=0
  until [ "$(sql "SELECT count(*) > 100 FROM marks WHERE run = $1")" = t ] || [ "$waited" -ge 300 ]; do
    sleep 0.2
    waited=$((waited + 1))
  done
}

# postgres_cut ROUND: the load, then first the daemon dies and a little later the server.
postgres_cut() {
  "$PG/pgbench" --host="$PG_SOCKET" --username=postgres --no-vacuum --client="$PG_CLIENTS" --time=600 \
    --scale="$PG_SCALE" --define=run="$1" --define=n=0 --file="$here/pgbench.sql" --log \
    --log-prefix="$OUT/told.$1" bench >"$OUT/pgbench.$1" 2>&1 &
  local load=$!
  PIDS+=("$load")
  postgres_await "$1"
  pause 500 "$PG_PAUSE_MAX"
  PG_PAUSED=$PAUSED
  kill -0 "$load" 2>/dev/null || say "pgbench ended early: $(tail -n 1 "$OUT/pgbench.$1")"
  kill_daemon
  pause 0 1000
  postgres_kill
  end_pid "$load"
}

# postgres_round ROUND OF WAL_SYNC_METHOD
postgres_round() {
  local name="postgres $1 of $2, $3" began marks
  postgres_cut "$1"
  mount_after_kill
  began=$(now_ms)
  postgres_start "$3" || { not_ok "$name: it does not recover"; return 1; }
  began=$(($(now_ms) - began))
  if marks=$(postgres_marks "$1"); then
    ok "$name: killed after $PG_PAUSED ms$WITHOUT, recovered in $began ms, $marks"
  else
    not_ok "$name: killed after $PG_PAUSED ms$WITHOUT: $marks"
  fi
  expect "$name: balances agree" postgres_balances
  expect "$name: pg_amcheck" postgres_sound
  postgres_stop
  expect "$name: pg_checksums" postgres_checksums
  if grep -aE 'PANIC|page verification|could not (read|write|open|create|access|fsync|rename|link|stat)' \
    "$PG_LOG" >"$OUT/complaints"; then
    not_ok "$name: the server complains: $(head -n 2 "$OUT/complaints" | tr '\n' ' ')"
  fi
  all_disks_back
}

# Each judge sees what is planted: a lost row, a lost mark, an altered page.
postgres_plant() {
  local file
  postgres_start fdatasync
  sql 'DELETE FROM pgbench_history WHERE ctid = (SELECT max(ctid) FROM pgbench_history)' >/dev/null
  must_fail "postgres: a lost row is seen" postgres_balances
  sql "DELETE FROM marks WHERE n = 3" >/dev/null
  must_fail "postgres: a lost transaction is seen" postgres_marks "$1"
  file=$(sql "SELECT pg_relation_filepath('pgbench_accounts')")
  postgres_stop
  printf x | dd of="$IN/data/$file" bs=1 seek=5000 conv=notrunc status=none
  must_fail "postgres: an altered page is seen" postgres_checksums
}

postgres_prepare() {
  install -d -o postgres -g postgres "$PG_SOCKET"
  install -d -m 700 -o postgres -g postgres "$IN/data"
  "${AS_POSTGRES[@]}" "$PG/initdb" --pgdata="$IN/data" --data-checksums --auth=trust --encoding=UTF8 \
    --locale=C --username=postgres >"$OUT/initdb" 2>&1 || { tail -n 3 "$OUT/initdb"; return 1; }
}

postgres_fill() {
  "$PG/createdb" --host="$PG_SOCKET" --username=postgres bench &&
    "$PG/pgbench" --host="$PG_SOCKET" --username=postgres --initialize --scale="$PG_SCALE" --quiet bench &&
    sql 'CREATE TABLE marks (run int, client int, n int, PRIMARY KEY (run, client, n))'
}

part_postgres() {
  local rounds=1 round methods=(fdatasync fsync open_datasync open_sync)
  PG_SCALE=1 PG_PAUSE_MAX=1200 PG_STARTS=0 PG_SOCKET=$WORK/socket
  if $full; then rounds=10 PG_SCALE=10 PG_PAUSE_MAX=10000; fi
  # The package starts a server of its own, which these tests leave alone.
  need 'ls /usr/lib/postgresql/*/bin/pg_amcheck' postgresql || return 0
  PG=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)
  expect "postgres: initdb" postgres_prepare
  postgres_start fdatasync || { not_ok "postgres: it does not start"; return 0; }
  expect "postgres: pgbench fills scale $PG_SCALE" postgres_fill
  for ((round = 1; round <= rounds; round++)); do
    postgres_round "$round" "$rounds" "${methods[(SEED + round) % 4]}" || return 0
    [ "$round" = "$rounds" ] || postgres_start "${methods[(SEED + round + 1) % 4]}" ||
      { not_ok "postgres: it does not start again"; return 0; }
  done
  postgres_plant "$rounds" || not_ok "postgres: nothing could be planted"
}
