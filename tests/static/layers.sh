#!/bin/sh
# The sources' includes point the right way.
exec "$SRCDIR/scripts/check-layers" "$SRCDIR"
