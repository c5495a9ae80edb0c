/* SPDX-License-Identifier: MIT */
/* A page's state word, and the functions that change only the state word. */
#include "mm/frames/page.h"

#include "mm/base/common.h"
#include "os/atomic.h"

void page_set(struct page *page, uint32_t set, uint32_t clear)
{
	uint32_t old = atomic_get(&page->state);
	while (!atomic_cas(&page->state, &old, (old & ~clear) | set))
		;
}

bool page_try_pin(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if ((old & PG_FREE) || PG_PINS(old) >= PG_PINS_MAX)
			return false;
	} while (!atomic_cas(&page->state, &old, old + PG_PIN));
	return true;
}

void page_pin(struct page *page)
{
	uint32_t old = atomic_add(&page->state, PG_PIN);
	mm_assert(!(old & PG_FREE));
	(void)old;
}

bool page_trylock(struct page *page)
{
	uint32_t old = atomic_get(&page->state);
	do {
		if (old & (PG_LOCKED | PG_FREE))
			return false;
	} while (!atomic_cas(&page->state, &old, old | PG_LOCKED));
	return true;
}
