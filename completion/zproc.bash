# zproc.bash -- what bash completes on a command line of zproc. Found by bash-completion when `zproc` is completed for the first time;
# without that: source it.
# shellcheck shell=bash

# The options of each command, besides those that all have. tests/spec/commands_spec.lua holds that none is missing.
declare -gA _zproc_options=(
  [run]='--prefix'
  [eval]='--address --namespace --json --transport'
  [repl]='--namespace --transport'
  [server]='--bind --data-dir --sync --restore --insecure'
  [worker]='--count --transport'
  [ping]='--timeout --transport'
  [ps]='--json --transport'
  [top]='--once --json --interval --namespace --transport'
  [state]='--namespace --at --since --count --limit --timeout --json-keys --string --replace --transport'
  [version]=''
  [help]=''
)
_zproc_actions='get set del dump load watch history backup' # of zproc state
_zproc_common='--secret-key-file --allow-user --help'
_zproc_with_value=' --address --allow-user --at --bind --count --data-dir --interval --limit --namespace --restore --secret-key-file --since --sync --timeout --transport '

# The addresses of this user's servers, each with a newline.
_zproc_addresses() {
  local socket
  for socket in "${ZPROC_RUNTIME_DIR:-/dev/shm}"/zproc-*/server; do
    if [ -S "$socket" ] && [ -O "$socket" ]; then printf 'ipc://%s\n' "$socket"; fi
  done
}

# The candidates for the value of an option.
_zproc_values() { # OPTION, what is there of it
  case $1 in
    --transport) compgen -W 'auto network' -- "$2" ;;
    --restore) compgen -W 'snapshot data' -- "$2" ;;
    --sync) compgen -W 'never interval always' -- "$2" ;;
    --address) compgen -W "$(_zproc_addresses)" -- "$2" ;;
    --allow-user) compgen -u -- "$2" ;;
    --secret-key-file) compgen -f -- "$2" ;;
    --data-dir) compgen -d -- "$2" ;;
  esac
}

# The candidates for an operand.
_zproc_operands() { # COMMAND, how many there are before it, the one before it, what is there of it
  case $1:$2 in
    run:0) compgen -f -X '!*.lua' -- "$4"; compgen -d -- "$4" ;;
    run:*) compgen -f -- "$4" ;;
    repl:0 | worker:0 | ping:0 | ps:0 | top:0 | state:0) compgen -W "$(_zproc_addresses)" -- "$4" ;;
    state:1) compgen -W "$_zproc_actions" -- "$4" ;;
    help:0) compgen -W "${!_zproc_options[*]}" -- "$4" ;;
    help:1) [ "$3" != state ] || compgen -W "$_zproc_actions" -- "$4" ;;
    state:2)
      case $3 in
        load) compgen -f -- "$4" ;;
        backup) compgen -d -- "$4" ;;
      esac
      ;;
  esac
}

_zproc() {
  # A colon ends a word to bash, but not to us: the words are taken from the line itself.
  local words current='' command='' last='' operands=0 i word
  read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
  if [[ ${COMP_LINE:0:COMP_POINT} != *[[:space:]] ]]; then
    current=${words[-1]}
    unset 'words[-1]'
  fi
  command=${words[1]-}
  COMPREPLY=()
  if [ -z "$command" ]; then
    mapfile -t COMPREPLY < <(compgen -W "${!_zproc_options[*]} --help --version" -- "$current")
    return
  fi
  [ -n "${_zproc_options[$command]+there}" ] || return
  for ((i = 2; i < ${#words[@]}; i++)); do
    word=${words[i]}
    if [[ $word == -?* ]]; then
      if [[ $_zproc_with_value == *" $word "* ]]; then i=$((i + 1)); fi
    else
      operands=$((operands + 1)) last=$word
      # What follows a script, or code, is its own.
      if [[ $command == run || $command == eval ]]; then break; fi
    fi
  done
  if ((i > ${#words[@]})); then
    mapfile -t COMPREPLY < <(_zproc_values "${words[-1]}" "$current")
  elif [[ $current == --*=* ]]; then
    mapfile -t COMPREPLY < <(_zproc_values "${current%%=*}" "${current#*=}")
  elif [[ $current == -* ]] && ! [[ $operands -gt 0 && ($command == run || $command == eval) ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${_zproc_options[$command]} $_zproc_common" -- "$current")
  else
    mapfile -t COMPREPLY < <(_zproc_operands "$command" "$operands" "$last" "$current")
  fi
  # Names of files are quoted by bash, and directories end with a slash.
  local is_file=${#COMPREPLY[@]}
  for word in "${COMPREPLY[@]}"; do [ -e "$word" ] || is_file=0; done
  if ((is_file)); then compopt -o filenames 2>/dev/null; fi
  # bash puts what we give behind the last colon that it has found.
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}"); fi
}

complete -F _zproc zproc
