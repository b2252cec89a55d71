# helpers -- what tests of clients in other places (machines, containers) have in common: `load helpers`. They have $dir, and the server's $address.

script() { # NAME: its text is on stdin, with the address as ADDRESS
  sed "s|ADDRESS|\"${address:?}\"|g" >"${dir:?}/$1.lua"
}

await() { # until the file has such a line
  local i
  for ((i = 0; i < 600; i++)); do
    ! grep -q "$2" "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}
