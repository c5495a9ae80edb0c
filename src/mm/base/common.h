/* SPDX-License-Identifier: MIT */
/* Helpers for words and bits that every folder uses. */
#ifndef FM_MM_BASE_COMMON_H
#define FM_MM_BASE_COMMON_H

#include "os/atomic.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define ra_get(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define ra_put(field, v) __atomic_store_n(&(field), (v), __ATOMIC_RELAXED)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#ifdef FM_DEBUG
#define mm_assert(cond) assert(cond)
#else
#define mm_assert(cond) ((void)sizeof(cond))
#endif

#define NONE UINT32_MAX  /* no page, no entry */
/* The number and the errno of a read attempt are written under the page lock. Threads that waited
 * for the attempt read both without the page lock. */
#define page_word(page, field) __atomic_load_n(&(page)->field, __ATOMIC_RELAXED)
#define page_word_set(page, field, v) __atomic_store_n(&(page)->field, v, __ATOMIC_RELAXED)

static inline bool bit_is(const uint64_t *bits, uint32_t id)
{
	return atomic_get(&((uint64_t *)(uintptr_t)bits)[id / 64]) >> (id % 64) & 1;
}

static inline bool bit_set(uint64_t *bits, uint32_t id)
{
	return atomic_or(&bits[id / 64], 1ull << (id % 64)) >> (id % 64) & 1;
}

static inline bool bit_clear(uint64_t *bits, uint32_t id)
{
	return atomic_and(&bits[id / 64], ~(1ull << (id % 64))) >> (id % 64) & 1;
}

#endif
