/* range.h -- the name that cmocka has for it since 2.0, where the one before is deprecated. */
#ifndef ZP_TEST_RANGE_H
#define ZP_TEST_RANGE_H

#include <cmocka.h>

#ifndef assert_uint_in_range
#define assert_uint_in_range(value, least, most) assert_in_range(value, least, most)
#endif

#endif
