#!/bin/sh
# The seeds of fuzzing are what the codec writes today.
set -eu
. "$SRCDIR/tests/static/tap.sh"

mkdir "$scratch/codec"
check 'seeds of the codec are written' "$ZPROC" run "$SRCDIR/tests/fuzz/codec_seeds.lua" "$scratch/codec"
check 'they are those in tests/fuzz/corpus/codec' diff -r "$SRCDIR/tests/fuzz/corpus/codec" "$scratch/codec"
finish
