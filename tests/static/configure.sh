#!/bin/sh
# configure refuses, by a sentence, a machine that lacks what zproc stands on; each is pretended by headers or programs that come first.
set -eu
. "$SRCDIR/tests/static/tap.sh"

if ! [ -x "$SRCDIR/configure" ]; then
  echo '1..0 # SKIP there is no configure'
  exit 0
fi
real=$(command -v gcc || command -v cc)
mkdir "$scratch/bin" "$scratch/include"

# features.h of this machine, with a last word.
cat >"$scratch/include/features.h" <<'C'
#include_next <features.h>
#ifdef ZP_TEST_MUSL
#undef __GLIBC__
#endif
#ifdef ZP_TEST_OLD
#undef __GLIBC_MINOR__
#define __GLIBC_MINOR__ 33
#endif
C
# shellcheck disable=SC2016
printf '#!/bin/sh\n[ "$1" = -r ] && [ -n "${ZP_TEST_KERNEL-}" ] && echo "$ZP_TEST_KERNEL" && exit\nexec %s "$@"\n' "$(command -v uname)" >"$scratch/bin/uname"
chmod +x "$scratch/bin/uname"

configure() { # FLAGS OF THE COMPILER [ENVIRONMENT]...
  flags=$1
  shift
  rm -rf "$scratch/build"
  mkdir "$scratch/build"
  (cd "$scratch/build" && env PATH="$scratch/bin:$PATH" "$@" "$SRCDIR/configure" CC="$real -I$scratch/include $flags") 2>&1
}

refuse 'musl is refused' 'error: zproc needs glibc 2.34 or later: .*musl' configure -DZP_TEST_MUSL
refuse 'an older glibc is refused' 'error: zproc needs glibc 2.34 or later' configure -DZP_TEST_OLD
refuse '32 bits are refused' 'error: zproc needs a machine of 64 bits' configure -U__LP64__
refuse 'big-endian machines are refused' 'error: zproc needs a little-endian machine' configure '-U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__'
refuse 'other systems are refused' 'error: zproc needs Linux' configure -U__linux__
for release in 4.19.0-27-amd64 5.2.21 5.0-rc1 3.10.0-1160.el7; do
  refuse "Linux $release is refused" 'error: zproc needs Linux 5.3 or later' configure '' ZP_TEST_KERNEL=$release
done

# Accepted is what gets past that, whatever configure says later.
accepted() {
  configure "$@" >"$scratch/said" || true
  grep '^checking for a kernel of Linux 5.3 or later... \((cached) \)\{0,1\}yes' "$scratch/said" || { cat "$scratch/said"; return 1; }
}
for release in 5.3.0 5.10.0-33-amd64 6.1 7.0.1+ 10.0; do
  check "Linux $release is accepted" accepted '' ZP_TEST_KERNEL=$release
done
check 'a build for another machine is possible' accepted '' ZP_TEST_KERNEL=4.19.0 zp_cv_linux=yes
finish
