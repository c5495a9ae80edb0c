/* SPDX-License-Identifier: MIT */
/*
 * Orders in which the units 0 to count-1 are visited. An order is a function from the turn to the
 * unit, so an order needs no memory in proportion to the count. An order does not change after
 * order_make(), so any thread may use the order.
 */
#ifndef FM_TOOL_ORDER_H
#define FM_TOOL_ORDER_H

#include <stdint.h>

enum order_kind { ORDER_SEQUENTIAL, ORDER_REVERSE, ORDER_RANDOM, ORDER_STRIDED };

struct order {
	enum order_kind kind;
	uint64_t count;
	unsigned half_bits; /* random order: width in bits of each half of the Feistel network */
};

void order_make(struct order *order, enum order_kind kind, uint64_t count);
uint64_t order_unit(const struct order *order, uint64_t turn);

#endif
