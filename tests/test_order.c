/* SPDX-License-Identifier: MIT */
/* An order visits each unit exactly once, whatever the count is. The random order is not the
 * identity. */
#include "check.h"
#include "command/order.h"

static void test_permutation(enum order_kind kind, uint64_t count)
{
	unsigned char *seen = calloc(count ? count : 1, 1);
	struct order order;
	uint64_t moved = 0;

	CHECK(seen);
	order_make(&order, kind, count);
	for (uint64_t turn = 0; turn < count; turn++) {
		uint64_t unit = order_unit(&order, turn);

		CHECK_LT(unit, count);
		CHECK_EQ(seen[unit], 0);
		seen[unit] = 1;
		moved += unit != turn;
	}
	if (kind == ORDER_RANDOM && count > 100)
		CHECK_GT(moved, count / 2);
	free(seen);
}

int main(void)
{
	struct order order;

	for (int kind = ORDER_SEQUENTIAL; kind <= ORDER_STRIDED; kind++) {
		for (uint64_t count = 0; count < 70; count++)
			test_permutation(kind, count);
		test_permutation(kind, 4096);
		test_permutation(kind, 100003);
	}
	order_make(&order, ORDER_REVERSE, 10);
	CHECK_EQ(order_unit(&order, 0), 9);
	/* The largest possible count: the call must end, and the unit must be below the count. */
	order_make(&order, ORDER_RANDOM, UINT64_MAX);
	CHECK(order_unit(&order, 12345) != UINT64_MAX);
	return 0;
}
