/* SPDX-License-Identifier: MIT */
/*
 * Orders in which units 0 to count-1 are visited: a function from the turn to the unit, without
 * memory in proportion to the count. Read-only once made, so any thread may ask. May call: nothing.
 */
#ifndef FM_TOOL_ORDER_H
#define FM_TOOL_ORDER_H

#include <stdint.h>

enum order_kind { ORDER_SEQUENTIAL, ORDER_REVERSE, ORDER_RANDOM, ORDER_STRIDED };

struct order {
	enum order_kind kind;
	uint64_t count;
	unsigned half_bits; /* random: width of each half of the Feistel network */
};

void order_make(struct order *order, enum order_kind kind, uint64_t count);
uint64_t order_unit(const struct order *order, uint64_t turn);

#endif
