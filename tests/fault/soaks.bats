# The tests of bad times that are scripts, for a few rounds each; scripts/soak runs them for as many as one likes.

# Run nth.lua with the library that makes things fail; a sanitizer has an allocator of its own, which cannot be replaced.
nth() { # KIND COUNT
  [ -z "${ASAN_OPTIONS-}${TSAN_OPTIONS-}" ] || skip "not in a build with sanitizers"
  library=${ZPROC%/*}/tests/fault/.libs/inject.so
  run timeout 280 env LD_PRELOAD="$library" "$ZPROC" run "$SRCDIR/tests/fault/nth.lua" "$library" "$@"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"all went on"* ]]
}

@test "whichever allocation fails, it is an error or nothing, and all goes on" {
  nth memory 100
}

@test "whichever descriptor is not to be had, it is an error or nothing, and all goes on" {
  nth descriptors 50
}

# The search for leaks complains when its process is killed.
no_leaks() {
  [ -z "${ASAN_OPTIONS-}" ] || export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"
}

@test "any process is killed under load, and nothing is lost that was acknowledged" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/kill_any.lua" 8
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"updates acknowledged, none lost"* ]]
}

@test "the server is killed again and again under load, and all go on" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/kill_any.lua" 3 1 server
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"the server 3,"* ]]
}

@test "any process is killed while everything goes through the network, and each change happens once or is asked after" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/kill_any.lua" 8 3 network
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"updates acknowledged, none lost"* ]]
}

@test "workers and pullers of maps are killed, and each item comes once and in order" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/map_kill.lua" 3
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"3 rounds, each item once and in order"* ]]
}

@test "files of data directories are damaged at random: the server names them, or has the right state" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/damage.lua" 12 5
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"damage: the right state "* ]]
}

@test "a watcher that is behind sees every change, or is told that it cannot" {
  # With this seed both happen.
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/slow_watch.lua" 8 1
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" =~ "8 rounds: "[1-9][0-9]*" changes seen, each once and in order; "[1-9] ]]
}

@test "predicates run without end beside writers that make the state grow, and all others get on" {
  no_leaks
  run timeout 280 "$ZPROC" run "$SRCDIR/tests/fault/predicates.lua" 6 2
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"6 rounds: "*"all others got on"* ]]
}

@test "strangers squat, lay out links, lock and say what they like, and no code of theirs runs" {
  no_leaks
  run timeout 280 "$SRCDIR/tests/fault/strangers" 15 3
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"15 rounds "*"nobody came in, and all were served"* ]]
}
