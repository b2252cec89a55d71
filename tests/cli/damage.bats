#!/usr/bin/env bats
# Data directories in which something is missing, damaged, or of another time: nothing is taken for a new state, nothing that is good is lost,
# and nothing crashes.

load keeping

# No server starts on the data, and it says so with these words; the files are as they were.
refused() { # WORDS OPTION...
  local before
  before=$(sums)
  run timeout 60 "$ZPROC" server --data-dir "$data" "${@:2}"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"$1"* ]]
  [ "$(sums)" = "$before" ]
}

sums() { find "$data" -name '*.mdb' -type f -exec md5sum {} + | sort; }

# A state with the revisions 1 and 2, that was closed in order or killed.
prepare() { # SIGNAL OPTION...
  rm -rf "$data"
  serve "${@:2}"
  lua 'state.n = "old"; state.n = "good"; for i = 1, 200 do state[i] = ("x"):rep(i * 40) end'
  [[ "${*:2}" != *interval* ]] || await_snapshot
  stop "$1"
}

# Note the files as they are, and have them back: data.mdb as the same file, which its status knows.
save() {
  rm -rf "$dir/saved"
  mkdir "$dir/saved"
  ln "$data/data.mdb" "$dir/saved/file"
  cp "$data/data.mdb" "$dir/saved/content"
  cp "$data/status" "$dir/saved/status"
  [ ! -e "$data/snapshot.mdb" ] || cp "$data/snapshot.mdb" "$dir/saved/snapshot.mdb"
}

rewind() {
  rm -rf "${data:?}"/*
  ln "$dir/saved/file" "$data/data.mdb"
  cat "$dir/saved/content" >"$data/data.mdb"
  cp "$dir/saved/status" "$data/status"
  [ ! -e "$dir/saved/snapshot.mdb" ] || cp "$dir/saved/snapshot.mdb" "$data/snapshot.mdb"
}

# Until there is a snapshot of what there is: the next one may have begun before the change.
await_snapshot() {
  change_and_await_snapshot '"good"'
  change_and_await_snapshot '"good"'
}

change_and_await_snapshot() {
  local before i
  before=$(stat -c %i "$data/snapshot.mdb")
  lua "state.n = $1"
  for ((i = 0; i < 600; i++)); do
    [ "$(stat -c %i "$data/snapshot.mdb" 2>/dev/null || echo "$before")" = "$before" ] || return 0
    sleep 0.1
  done
  return 1
}

is_good() {
  [ "$(lua 'assert(#state[200] == 8000); print(state.n)')" = good ]
}

restored() { # WHAT
  serve --restore "$1"
  is_good
  stop TERM
  serve # it was needed once
  is_good
  stop TERM
}

@test "missing data are no new state, and the last snapshot stays" {
  for signal in TERM KILL; do
    prepare $signal --sync interval
    rm "$data/data.mdb"
    refused "data.mdb is missing"
    [[ "$output" == *"--restore snapshot goes on from snapshot.mdb, which is whole: revision"* ]]
    refused "data.mdb is missing" --sync never
    refused "data.mdb is missing" --restore data
    restored snapshot
  done
}

@test "data that were emptied, cut, filled with garbage or are something else are no new state" {
  for signal in TERM KILL; do
    prepare $signal --sync interval
    save
    for way in ': >"$data/data.mdb"' 'truncate -s 8192 "$data/data.mdb"' 'truncate -s 100 "$data/data.mdb"' \
      'head -c 300000 /dev/urandom >"$data/data.mdb"' 'dd if=/dev/urandom of="$data/data.mdb" bs=4096 seek=2 count=20 conv=notrunc status=none' \
      'dd if=/dev/zero of="$data/data.mdb" bs=4096 seek=2 count=20 conv=notrunc status=none' \
      'dd if=/dev/urandom of="$data/data.mdb" bs=16 seek=1 count=1 conv=notrunc status=none' \
      'rm "$data/data.mdb"; mkdir "$data/data.mdb"' 'rm "$data/data.mdb"; mkfifo "$data/data.mdb"' 'rm "$data/data.mdb"; ln -s /nowhere "$data/data.mdb"'; do
      rewind
      eval "$way"
      refused "/data.mdb"
      [[ "$output" == *"--restore snapshot"* ]]
      restored snapshot
      [ -e "$data/data.damaged" ] || [ -L "$data/data.damaged" ] || [[ "$way" == 'rm "$data/data.mdb"' ]]
    done
  done
}

@test "what was cut of the room behind the data is of no account" {
  for signal in KILL TERM; do
    prepare $signal --sync never
    truncate -s -4096 "$data/data.mdb"
    serve
    is_good
    stop TERM
  done
}

@test "one bit is enough after an end in order" {
  prepare TERM --sync never
  # Within a value, where no structure shows it.
  offset=$(grep -abo xxxxxxxxxxxx "$data/data.mdb" | head -n 1 | cut -d: -f1)
  printf y | dd of="$data/data.mdb" bs=1 seek="$offset" conv=notrunc status=none
  refused "its sum is another"
  [[ "$output" == *"there is no snapshot.mdb to go on from; --restore data goes on with data.mdb as it is: revision 202"* ]]
  restored data
}

@test "a status that is missing or damaged is an error, and what is there can be gone on with" {
  prepare TERM --sync interval
  save
  for way in 'rm "$data/status"' ': >"$data/status"' 'head -c 200 /dev/urandom >"$data/status"' 'sed -i "1s/closed/open/" "$data/status"' \
    'sed -i 1d "$data/status"' 'truncate -s -1 "$data/status"' 'truncate -s 20 "$data/status"' 'rm "$data/status"; mkdir "$data/status"' \
    'sed -i "3s/[0-9] /9 /" "$data/status"' 'sed -i "1s/interval/always/" "$data/status"'; do
    rewind
    eval "$way"
    refused "status"
    [ ! -d "$data/status" ] || rmdir "$data/status"
    restored snapshot
  done
  # Data alone, or a snapshot alone, do not make a directory.
  rewind
  rm "$data/status" "$data/data.mdb"
  refused "holds a snapshot, but no status"
  restored snapshot
}

@test "a status of the beginning does not remove data" {
  prepare TERM --sync interval
  mv "$data" "$dir/real"
  serve
  stop TERM
  # As it is while a first store is made.
  printf 'zproc 3 making %s always\n\n' "$(cat /proc/sys/kernel/random/boot_id)" >"$dir/making"
  rm -rf "$data"
  mv "$dir/real" "$data"
  cp "$dir/making" "$data/status"
  refused "says that nothing was ever in this state, and that is false"
  restored snapshot
}

@test "files of another state or another time are found out" {
  prepare TERM --sync interval
  cp -a "$data" "$dir/first"
  serve
  lua 'state.n = "later"'
  stop TERM
  cp -a "$data" "$dir/second"
  cp "$dir/first/data.mdb" "$data/data.mdb" # an older one of the same state
  refused "/data.mdb"
  cp "$dir/second/data.mdb" "$data/data.mdb"
  cp "$dir/first/status" "$data/status"
  refused "/data.mdb"
  # And after a kill, where there is no sum.
  cp "$dir/second/status" "$data/status"
  serve
  lua 'state.n = "newest"'
  stop KILL
  cat "$dir/first/data.mdb" >"$data/data.mdb"
  refused "revision"
  rm -rf "$data"
  prepare KILL --sync interval
  cat "$dir/first/data.mdb" >"$data/data.mdb"
  refused "it is of another state"
}

@test "a snapshot that is damaged is not gone back to" {
  prepare KILL --sync interval
  pretend_reboot
  save
  for way in ': >"$data/snapshot.mdb"' 'truncate -s -1 "$data/snapshot.mdb"' 'truncate -s -4096 "$data/snapshot.mdb"' \
    'dd if=/dev/urandom of="$data/snapshot.mdb" bs=1 seek=70000 count=1 conv=notrunc status=none' 'head -c 100000 /dev/urandom >"$data/snapshot.mdb"' \
    'rm "$data/snapshot.mdb"' 'rm "$data/snapshot.mdb"; mkfifo "$data/snapshot.mdb"'; do
    rewind
    eval "$way"
    refused "snapshot.mdb"
    [[ "$output" == *"--restore data goes on with data.mdb as it is"* ]]
    refused "snapshot.mdb" --restore snapshot
    restored data
  done
}

@test "an old snapshot, and one of another state, are not gone back to" {
  prepare TERM --sync interval
  cp "$data/snapshot.mdb" "$dir/old"
  serve
  lua 'state.n = "later"'
  stop TERM
  serve
  stop KILL
  pretend_reboot
  cp "$dir/old" "$data/snapshot.mdb"
  refused "and revision"
  prepare KILL --sync interval
  pretend_reboot
  cp "$dir/old" "$data/snapshot.mdb"
  refused "it is of another state"
}

@test "what cannot be read is named" {
  [ "$(id -u)" != 0 ] || skip "root may read anything"
  prepare TERM --sync interval
  for file in status data.mdb snapshot.mdb lock; do
    chmod 0 "$data/$file"
    run timeout 60 "$ZPROC" server --data-dir "$data"
    [ "$status" -eq 1 ] || [ $file = snapshot.mdb ]
    [[ "$output" == *"$file: Permission denied"* ]] || [ $file = snapshot.mdb ]
    chmod 600 "$data/$file"
  done
}

@test "what is in order is not restored, and restoring goes with a directory" {
  prepare TERM --sync interval
  refused "there is nothing to restore: the state in" --restore snapshot
  refused "there is nothing to restore: the state in" --restore data
  serve
  is_good
  stop TERM
  rm -rf "$data"
  run timeout 60 "$ZPROC" server --data-dir "$data" --restore data
  [[ "$output" == *"there is nothing to restore in"* ]]
  run timeout 60 "$ZPROC" server --restore data
  [ "$status" -eq 2 ]
  [[ "$output" == *"--restore goes with --data-dir"* ]]
  run timeout 60 "$ZPROC" server --data-dir "$data" --restore all
  [ "$status" -eq 2 ]
}

@test "going back to a snapshot can be interrupted at any step" {
  prepare KILL --sync interval
  rm "$data/data.mdb"
  cp -a "$data" "$dir/before"
  # Whatever names there are when the status says that it is going on.
  for leftover in 'cp snapshot.mdb data.new' 'cp snapshot.mdb data.mdb' 'head -c 5000 /dev/urandom >data.new' 'touch data.mdb'; do
    rm -rf "$data"
    cp -a "$dir/before" "$data"
    serve --restore snapshot
    stop KILL
    printf 'zproc 3 restoring %s always\n\n' "$(cat /proc/sys/kernel/random/boot_id)" >"$data/status"
    rm -f "$data/data.mdb"
    (cd "$data" && eval "$leftover")
    serve
    is_good
    stop TERM
  done
}

@test "a backup of a state that is written to is of one instant" {
  serve --sync never
  lua 'for i = 1, 300 do state[i] = ("x"):rep(20000) end'
  (exec 3>&-; lua 'local step = zproc.atomic(function(t, n) for i = 1, 300 do t[i] = ("%08d"):format(n):rep(2500) end end)
    for n = 1, 1e9 do step(state, n) end' >/dev/null 2>&1) &
  for round in 1 2 3 4 5; do
    revision=$("$ZPROC" state "$address" backup "$dir/backup$round")
    [ "$revision" -gt 0 ]
  done
  pkill -9 -f -- "$dir/chunk" || true
  stop TERM
  for round in 1 2 3 4 5; do
    data=$dir/backup$round
    serve
    lua 'local first = state[1]; for i = 2, 300 do assert(state[i] == first, i) end'
    stop TERM
  done
}

@test "a backup is made of any state of this machine, with all its namespaces" {
  "$ZPROC" server --bind "$address" >"$dir/out" 2>&1 3>&- &
  server=$!
  await_output "$dir/out"
  lua 'state.n = "good"; state:fork { namespace = "other" }.x = { 1, 2 }'
  [ "$(lua 'print(zproc.backup(state, arg[1]))' "$dir/one")" = 2 ]
  [ "$(cd "$dir" && "$ZPROC" state "$address" backup two)" = 2 ] # a name within the directory
  stop TERM
  for data in "$dir/one" "$dir/two"; do
    serve --sync always
    [ "$(lua 'print(state.n, state:fork { namespace = "other" }.x[2])')" = $'good\t2' ]
    stop TERM
  done
}

@test "what cannot be a backup says why, and leaves nothing" {
  serve
  lua 'state.n = 1'
  mkdir "$dir/full"
  touch "$dir/full/file"
  run "$ZPROC" state "$address" backup "$dir/full"
  [ "$status" -eq 1 ]
  [[ "$output" == *"$dir/full is not empty"* ]]
  [ "$(ls "$dir/full")" = file ]
  run "$ZPROC" state "$address" backup "$dir/no/where"
  [[ "$output" == *"$dir/no/where: No such file"* ]]
  run "$ZPROC" state "$address" backup "$data"
  [[ "$output" == *"is not empty"* ]]
  run "$ZPROC" state "$address" backup "$dir/full/file"
  [[ "$output" == *"Not a directory"* ]]
  run "$ZPROC" state "$address" backup
  [ "$status" -eq 2 ]
  [[ "$output" == *"backup takes a directory"* ]]
  run "$ZPROC" state "$address" backup --transport network "$dir/elsewhere"
  [ "$status" -eq 2 ]
  [[ "$output" == *"on the machine of the server"* ]]
  [ ! -e "$dir/elsewhere" ]
  # One that was cut short is no data directory.
  "$ZPROC" state "$address" backup "$dir/cut"
  rm "$dir/cut/status"
  stop TERM
  data=$dir/cut
  refused "no status"
}

@test "a copy of a directory in use is refused, or gone on from its snapshot by a wish" {
  serve --sync interval
  lua 'for i = 1, 200 do state[i] = ("x"):rep(i * 40) end'
  change_and_await_snapshot 6
  change_and_await_snapshot '"good"'
  change_and_await_snapshot '"good"'
  cp -a "$data" "$dir/copy"
  lua 'state.n = "later"'
  original=$data
  data=$dir/copy
  refused "it is a copy of a file that was in use"
  [[ "$output" == *"--restore snapshot"*"--restore data"* ]]
  [ "$(lua 'print(state.n)')" = later ] # the original takes no notice
  stop TERM
  restored snapshot
  # It is whole in fact, but nobody could know.
  rm -rf "$dir/copy"
  data=$original
  serve
  lua 'state.n = "good"'
  stop KILL
  cp -a "$data" "$dir/copy"
  serve
  is_good
  stop TERM
  data=$dir/copy
  refused "it is a copy of a file that was in use"
  restored data
}

@test "a directory that was closed may be copied and moved" {
  prepare TERM --sync interval
  cp -a "$data" "$dir/copy"
  mv "$data" "$dir/moved"
  for data in "$dir/copy" "$dir/moved"; do
    serve
    is_good
    stop KILL
  done
  mv "$dir/moved" "$dir/again" # killed, but the same file
  data=$dir/again
  serve
  is_good
}

@test "whoever uses a directory that is moved away or removed gets ServerLost" {
  for way in 'mv "$data" "$dir/away"' 'rm -rf "$data"' 'rm "$data/data.mdb"' 'chmod 700 "$data"; mv "$data/data.mdb" "$data/other.mdb"' \
    'cp "$data/data.mdb" "$dir/x"; rm "$data/data.mdb"; cp "$dir/x" "$data/data.mdb"'; do
    rm -rf "$data" "$dir/away" "$dir/x"
    serve
    lua 'state.n = 1'
    eval "$way"
    cat >"$dir/calls.lua" <<'LUA'
local zproc = require "zproc"
local address = arg[1]
local calls = {
  state = function() return zproc.state(address) end,
  context = function() return zproc.context(address) end,
  get = function() return zproc.context { server_address = address }.state.n end,
  process = function() return zproc.process(function(state) return state.n end, address):wait() end,
  network = function() return zproc.state(address, { transport = "network" }).n end,
  backup = function() return zproc.backup(zproc.state(address), arg[2]) end,
}
for name, call in pairs(calls) do
  local ok, err = pcall(call)
  local text = tostring(err)
  assert(not ok and (zproc.is_error(err, "ServerLost") or text:find "ServerLost"), name .. ": " .. text)
end
LUA
    run timeout 60 "$ZPROC" run "$dir/calls.lua" "$address" "$dir/backup"
    echo "$way: $output"
    [ "$status" -eq 0 ]
    for command in "state $address get" "state $address backup $dir/backup" "top --once $address" "eval --address $address state.n"; do
      run timeout 60 "$ZPROC" $command
      echo "$command: $output"
      [ "$status" -eq 1 ]
      [[ "$output" == *"moved or replaced"* ]]
    done
    stop TERM
  done
}
