#!/bin/sh
# check-layers finds what it is there to find. Tried on a small tree with one line added.
set -eu
. "$SRCDIR/tests/static/tap.sh"

tree=$scratch/tree
with() { # file, line: a fresh tree with this line at the end of the file
  rm -rf "$tree"
  for layer in base sys store codec; do
    mkdir -p "$tree/src/$layer"
    printf '#include <sys/types.h>\n#include "config.h"\n#include "base/base.h"\n' >"$tree/src/$layer/$layer.h"
    echo "include src/$layer/layer.am" >>"$tree/Makefile.am"
  done
  mkdir -p "$(dirname "$tree/$1")"
  printf '%s\n' "$2" >>"$tree/$1"
  "$SRCDIR/scripts/check-layers" "$tree"
}

check 'a tree that is in order passes' with src/base/base.h ''
check 'a lower layer may be included' with src/store/store.h '#include "sys/sys.h"'
check 'a system header may have a folder named as a layer' with src/base/base.h '#include <sys/wait.h>'
check 'codec may include Lua' with src/codec/codec.h '#include <lua.h>'
refuse 'a higher layer may not be included' '^# src/base/base.h:4:.*#include "store/store.h"' \
  with src/base/base.h '#include "store/store.h"'
refuse 'neither in another spelling' '^# src/base/base.c:.*stands on it' with src/base/base.c '  #  include <store/store.h> /* why not */'
refuse 'neither by a path of dots' '^# src/sys/sys.h:.*not named from src' with src/sys/sys.h '#include "../store/store.h"'
refuse 'neither behind a macro' '^# src/sys/sys.h:.*cannot be checked' with src/sys/sys.h '#include STORE_H'
refuse 'what is below codec does not include Lua' '^# src/store/store.h:.*Lua' with src/store/store.h '#include <lauxlib.h>'
refuse 'a folder that is no layer is noticed' '^# src/new/ is not included' with src/new/new.c ''
refuse 'a tree without layers is no success' 'Bail out' "$SRCDIR/scripts/check-layers" "$scratch"
finish
