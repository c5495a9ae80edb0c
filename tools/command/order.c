/* SPDX-License-Identifier: MIT */
/*
 * Orders in which units are visited. See order.h. The random order is a permutation: a Feistel
 * network of four rounds, whose domain is the next power of four. The network is applied again
 * until the result is less than the count, which takes less than four steps on average. The same
 * count always gives the same order.
 */
#include "command/order.h"

void order_make(struct order *order, enum order_kind kind, uint64_t count)
{
	unsigned bits = 2;

	while (bits < 64 && count > 1ull << bits)
		bits += 2;
	*order = (struct order){.kind = kind, .count = count, .half_bits = bits / 2};
}

static uint64_t mix(uint64_t value, unsigned round)
{
	value = (value + round + 1) * 0x9e3779b97f4a7c15ull;
	value ^= value >> 32;
	value *= 0xd6e8feb86659fd93ull;
	return value ^ value >> 29;
}

static uint64_t feistel(uint64_t value, unsigned half_bits)
{
	uint64_t mask = (1ull << half_bits) - 1;
	uint64_t left = value >> half_bits, right = value & mask;

	for (unsigned round = 0; round < 4; round++) {
		uint64_t next = left ^ (mix(right, round) & mask);

		left = right;
		right = next;
	}
	return left << half_bits | right;
}

uint64_t order_unit(const struct order *order, uint64_t turn)
{
	uint64_t unit = turn;

	switch (order->kind) {
	case ORDER_SEQUENTIAL:
	case ORDER_STRIDED:
		return turn;
	case ORDER_REVERSE:
		return order->count - 1 - turn;
	case ORDER_RANDOM:
		do
			unit = feistel(unit, order->half_bits);
		while (unit >= order->count);
		break;
	}
	return unit;
}
