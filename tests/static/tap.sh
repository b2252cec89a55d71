# tap.sh -- for tests in shell: source this, call `check` and `refuse` once per behaviour, end with `finish`.
# shellcheck shell=sh

tap_number=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tap_result() { # "ok" or "not ok", what, output
  tap_number=$((tap_number + 1))
  echo "$1 $tap_number - $2"
  [ "$1" = ok ] || printf '%s\n' "$3" | sed 's/^/# /'
}

# check WHAT COMMAND...: the command succeeds.
check() {
  tap_what=$1
  shift
  if tap_output=$("$@" 2>&1); then
    tap_result ok "$tap_what" ''
  else
    tap_result 'not ok' "$tap_what" "$tap_output"
  fi
}

# refuse WHAT PATTERN COMMAND...: the command fails, with output that matches.
refuse() {
  tap_what=$1
  tap_pattern=$2
  shift 2
  if tap_output=$("$@" 2>&1) || ! printf '%s\n' "$tap_output" | grep -q -e "$tap_pattern"; then
    tap_result 'not ok' "$tap_what" "wanted a failure that says '$tap_pattern', got:
$tap_output"
  else
    tap_result ok "$tap_what" ''
  fi
}

finish() {
  echo "1..$tap_number"
  exit 0
}
