/* SPDX-License-Identifier: MIT */
/*
 * The memory of the machine: the slots of frames, and the page table of views. The calls of trap.h
 * change both as the kernel's userfaultfd does, with all its failures.
 *
 * Slots are real memory (memory.c). Views are numbers only: no other file looks into them. For
 * each 4096 bytes the machine models the first eight of every 512 bytes: these say which bytes
 * they are (store.c).
 */
#include "sim.h"

#include "machine/memory.h"

#define VIEWS_MAX 1024u
#define FAMINES_MAX 4u
#define HOLDS_MAX 16u /* for each run: a page that is held for ever could never be evicted */
#define NO_MEMORY 0xdeaddeaddeaddeadull /* the contents of a slot without memory */

enum slot_state { SLOT_NOT, SLOT_ABSENT, SLOT_PRESENT };

static uint8_t slot_state[ARENA_BYTES / OS_PAGE];
static bool slots_registered;
static uint64_t slots_present;

static uint64_t view_addr[VIEWS_MAX];
static struct view_page view_page[VIEWS_MAX];
static uint32_t views;
static struct {
	uint64_t addr, until_ns;
} held[8]; /* pages that the kernel keeps pinned for a while: MOVE is refused */
static uint32_t holds, famines; /* number of them in this run */
static uint64_t famine_until; /* no memory until this time */
static uint64_t read_only, read_only_len; /* a region that is PROT_READ for a moment */
static uint64_t last_lie[SIM_THREADS]; /* destination of the page that MOVE last denied to move */

/* ------------------------------------------------------------------ the beginning of a run */

void kernel_reset(void)
{
	memset(slot_state, SLOT_NOT, memory_reset() / OS_PAGE + 1);
	slots_present = 0;
	views = 0;
	memset(last_lie, 0, sizeof(last_lie));
	memset(held, 0, sizeof(held));
	holds = famines = 0;
	famine_until = 0;
	read_only_len = 0;
}

/* ------------------------------------------------------------------ slots and views */

static uint8_t *slot_at(uint64_t addr)
{
	return addr - ARENA < ARENA_BYTES && slot_state[(addr - ARENA) / OS_PAGE] != SLOT_NOT
		       ? &slot_state[(addr - ARENA) / OS_PAGE]
		       : NULL;
}

static uint64_t *tag_of(uint64_t addr, uint32_t sector)
{
	return (uint64_t *)(addr + sector * SIM_SECTOR);
}

static void slot_fill(uint64_t addr, const uint64_t *tags)
{
	uint8_t *state = slot_at(addr);
	for (uint32_t i = 0; i < SIM_TAGS; i++) {
		if (slots_registered && *state == SLOT_ABSENT && *tag_of(addr, i) != NO_MEMORY)
			sim_fail("a slot was written to while it had no memory");
		*tag_of(addr, i) = tags ? tags[i] : 0;
	}
	slots_present += *state != SLOT_PRESENT;
	*state = SLOT_PRESENT;
}

static void slot_empty(uint64_t addr)
{
	uint8_t *state = slot_at(addr);
	for (uint32_t i = 0; i < SIM_TAGS; i++)
		*tag_of(addr, i) = NO_MEMORY;
	slots_present -= *state == SLOT_PRESENT;
	*state = SLOT_ABSENT;
}

/* A touch of a slot that no trap watches gives the slot memory. */
bool kernel_slot_present(uint64_t addr)
{
	uint8_t *state = slot_at(addr);
	if (state && *state == SLOT_ABSENT && !slots_registered)
		slot_fill(addr, NULL);
	return state && *state == SLOT_PRESENT;
}

struct view_page *kernel_view(uint64_t addr)
{
	addr &= ~(uint64_t)(OS_PAGE - 1);
	for (uint32_t i = 0; i < views; i++)
		if (view_addr[i] == addr)
			return &view_page[i];
	return NULL;
}

bool kernel_read(uint64_t addr, uint64_t *ret_tag)
{
	const struct view_page *page = slot_at(addr) ? NULL : kernel_view(addr);
	bool there = slot_at(addr) ? kernel_slot_present(addr & ~(uint64_t)(OS_PAGE - 1))
				   : page && !page->poison;
	if (there)
		*ret_tag = page ? page->tag[addr % OS_PAGE / SIM_SECTOR] : *(uint64_t *)addr;
	return there;
}

uint64_t kernel_view_addr(uint32_t n)
{
	return n < views ? view_addr[n] : 0;
}

uint64_t kernel_pages(bool slots)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < views; i++)
		n += !view_page[i].poison;
	return slots ? slots_present : n;
}

static struct view_page *view_add(uint64_t addr)
{
	if (views == VIEWS_MAX)
		sim_fail("there are more pages in views than frames");
	view_addr[views] = addr;
	view_page[views] = (struct view_page){.poison = false};
	return &view_page[views++];
}

static void view_remove(struct view_page *page)
{
	uint32_t at = (uint32_t)(page - view_page);
	views--;
	view_addr[at] = view_addr[views];
	view_page[at] = view_page[views];
}

static void kernel_unmap(uint64_t base, uint64_t len)
{
	for (uint32_t i = 0; i < views;)
		if (view_addr[i] - base < len)
			view_remove(&view_page[i]);
		else
			i++;
}

static void wake_range(uint64_t base, uint64_t len)
{
	for (uint32_t i = 0; i < sim.threads; i++)
		if (sim.thread[i].wait == WAIT_FAULT && sim.thread[i].key - base < len)
			sim_notify(WAIT_FAULT, sim.thread[i].key);
}

void kernel_region_gone(uint64_t base, uint64_t len)
{
	kernel_unmap(base, len);
	wake_range(base, len);
}

void kernel_empty(uint64_t addr)
{
	struct view_page *page = kernel_view(addr);
	if (!page)
		return;
	mark(emptied);
	sim.emptied = true;
	event("empties the view at %#llx, as the program may", addr, 0, 0, 0);
	view_remove(page);
}

static void wake_faults(uint64_t addr)
{
	sim_notify(WAIT_FAULT, addr & ~(uint64_t)(OS_PAGE - 1));
}

int kernel_poison(uint64_t addr)
{
	addr &= ~(uint64_t)(OS_PAGE - 1);
	if (kernel_view(addr))
		return -EEXIST;
	view_add(addr)->poison = true;
	mark(poisoned);
	wake_faults(addr);
	return 0;
}

void kernel_protect_region(uint64_t base, uint64_t len, bool on)
{
	read_only = base;
	read_only_len = on ? len : 0;
	event(on ? "the region at %#llx becomes read-only"
		 : "the region at %#llx is writable again",
	      base, 0, 0, 0);
}

bool kernel_refuses_write(uint64_t addr)
{
	return addr - read_only < read_only_len;
}

/* ------------------------------------------------------------------ calls */

static void enter_kernel(const char *what, bool mmap_lock)
{
	check_may_block(what);
	sim_point();
	if (mmap_lock && sim_chance(sim.opt.stall_256)) {
		mark(kernel_stalls);
		sim_sleep(1000 + sim_below(3000000));
	}
}

/* Return some time up to `most_ns`, but at most 50,000 steps: waiting threads may spin. */
static uint64_t a_while(uint64_t most_ns)
{
	uint64_t steps_ns = sim.opt.ns_per_step * 50000ull;
	return sim_below((uint32_t)(most_ns < steps_ns ? most_ns : steps_ns));
}

/* Return whether direct I/O or a pipe has the page pinned, perhaps for longer than all tries. */
static bool is_held(uint64_t addr)
{
	if (holds < HOLDS_MAX && sim_chance(sim.opt.held_256)) {
		uint32_t at = holds++ % 8;
		held[at].addr = addr;
		held[at].until_ns = sim.now_ns + a_while(5 * OS_NSEC_PER_MSEC);
	}
	for (uint32_t i = 0; i < 8; i++)
		if (held[i].addr == addr && sim.now_ns < held[i].until_ns)
			return true;
	return false;
}

/* Return whether memory for a page table or a page is missing now. Each shortage lasts a while. */
static bool no_memory(void)
{
	if (sim.now_ns >= famine_until && famines < FAMINES_MAX && sim_chance(sim.opt.famine_256)) {
		bool longest = !famines++ &&
			       sim.opt.ns_per_step >
				       150; /* longer than the library waits in one place */
		famine_until = sim.now_ns + (longest ? 150 * OS_NSEC_PER_MSEC : a_while(150 * OS_NSEC_PER_MSEC));
	}
	if (sim.now_ns >= famine_until)
		return false;
	mark(no_memory);
	return true;
}

static bool is_there(uint64_t addr)
{
	const struct view_page *page = slot_at(addr) ? NULL : kernel_view(addr);
	return slot_at(addr) ? kernel_slot_present(addr) : page && !page->poison;
}

/* Move 4096 bytes, in either direction. */
static int move_one(uint64_t dst, uint64_t src)
{
	uint64_t tags[SIM_TAGS];
	if (slot_at(src)) {
		if (slot_at(dst) ? *slot_at(dst) == SLOT_PRESENT : kernel_view(dst) != NULL)
			return -EEXIST;
		if (!kernel_slot_present(src))
			return -ENOENT;
		for (uint32_t i = 0; i < SIM_TAGS; i++)
			tags[i] = *tag_of(src, i);
		slot_empty(src);
		if (slot_at(dst)) /* from a staging slot to the page's own slot */
			slot_fill(dst, tags);
		else
			memcpy(view_add(dst)->tag, tags, sizeof(tags));
		if (!slot_at(dst))
			check_arrival(dst);
	} else {
		struct view_page *page = kernel_view(src);
		if (*slot_at(dst) == SLOT_PRESENT)
			return -EEXIST;
		if (!page || page->poison)
			return page ? -EFAULT : -ENOENT;
		slot_fill(dst, page->tag);
		view_remove(page);
	}
	return 0;
}

/* Wake only the threads that wait for pages that MOVE counts. */
static void move_counted(uint64_t dst, uint64_t done, uint64_t *ret_done)
{
	for (uint64_t at = 0; at < done; at += OS_PAGE)
		wake_faults(dst + at);
	*ret_done = done;
}

static int move_result(int err)
{
	if (err == -EEXIST)
		mark(move_exists);
	if (err == -ENOENT)
		mark(move_missing);
	if (err == -EBUSY)
		mark(move_held);
	return err;
}

int trap_move(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	uint64_t done = 0;
	enter_kernel("MOVE", false);
	*ret_done = 0;
	if (!trap->move || !slot_at(slot_at(src) ? src : dst))
		sim_fail("MOVE from %#llx to %#llx: a bad range",
			 (unsigned long long)src, (unsigned long long)dst);
	if (is_there(src) && sim_chance(sim.opt.busy_256)) {
		mark(move_busy);
		event("MOVE to %#llx: EBUSY", dst, 0, 0, 0);
		return -EBUSY;
	}
	if (kernel_refuses_write(dst) || kernel_refuses_write(src)) /* both must be writable */
		return -EINVAL;
	if (sim_chance(sim.opt.part_256 / 4)) {
		mark(move_none);
		return -EAGAIN;
	}
	if (no_memory())
		return -ENOMEM;
	while (done < len) {
		int err = is_there(src + done) && is_held(src + done) ? -EBUSY : move_one(dst + done, src + done);
		if (err) {
			event("MOVE %#llx to %#llx: error %llu, %llu bytes done", src, dst, -err, done);
			if (err == -EBUSY && done &&
			    sim_chance(
				    128)) /* Linux 6.18 may not count the pages before */
				return err;
			move_counted(dst, done, ret_done);
			return done ? -EAGAIN : move_result(err);
		}
		/* Linux 6.18 beside a WRITEPROTECT; see move_after_exist(). Seen once in 500,000
		 * times, so never twice in a row. */
		if (last_lie[sim.self->id] != src + done && sim_chance(sim.opt.lie_256)) {
			last_lie[sim.self->id] = dst + done;
			mark(move_exists_moved);
			event("MOVE %#llx to %#llx: EEXIST after the page was moved", src, dst, 0, 0);
			move_counted(dst, done, ret_done);
			return done ? -EAGAIN : -EEXIST;
		}
		last_lie[sim.self->id] = 0;
		done += OS_PAGE;
		if (done < len && sim_chance(sim.opt.part_256)) {
			mark(move_part);
			move_counted(dst, done, ret_done);
			return -EAGAIN;
		}
		if (done < len)
			sim_point();
	}
	event("MOVE %#llx to %#llx, %llu bytes", src, dst, len, 0);
	move_counted(dst, done, ret_done);
	return 0;
}

static int copy_as(uint64_t dst, uint64_t src, uint64_t len, bool protected, uint64_t *ret_done)
{
	*ret_done = 0;
	enter_kernel("COPY", false);
	if (no_memory())
		return -ENOMEM;
	for (uint64_t done = 0; done < len; done += OS_PAGE) {
		*ret_done = done;
		struct view_page *there = kernel_view(dst + done);
		if (there && !there->poison) { /* COPY replaces an error mark */
			mark(copy_exists);
			return done ? -EAGAIN : -EEXIST;
		}
		if (done && sim_chance(sim.opt.part_256)) {
			mark(copy_part);
			return -EAGAIN;
		}
		if (!kernel_slot_present(src + done))
			return -EFAULT;
		struct view_page *page = there ? there : view_add(dst + done);
		for (uint32_t i = 0; i < SIM_TAGS; i++)
			page->tag[i] = *tag_of(src + done, i);
		page->protected = protected;
		page->poison = false;
		if (there)
			mark(copy_over_mark);
		wake_faults(dst + done);
	}
	event(protected ? "COPY %#llx to %#llx, %llu bytes"
			: "COPY %#llx to %#llx, %llu bytes, writable",
	      src, dst, len, 0);
	*ret_done = len;
	return 0;
}

int trap_copy(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len, uint64_t *ret_done)
{
	(void)trap;
	return copy_as(dst, src, len, true, ret_done);
}

int trap_copy_writable(struct trap *trap, uint64_t dst, uint64_t src, uint64_t len,
		       uint64_t *ret_done)
{
	(void)trap;
	return copy_as(dst, src, len, false, ret_done);
}

int trap_fill_whole(struct trap *trap, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	uint64_t some = sim_chance(16) ? sim_below(2) * OS_PAGE : len; /* no huge page */
	int err = trap_fill(trap, dst, some);
	*ret_done = err ? 0 : some;
	return err ? err : some < len ? -EAGAIN : 0;
}

int trap_fill_together(struct trap *trap, uint64_t dst, uint64_t len)
{
	return trap_fill(trap, dst, len);
}

int trap_fill(struct trap *trap, uint64_t dst, uint64_t len)
{
	(void)trap;
	enter_kernel("COPY of zeros", false);
	if (no_memory())
		return -ENOMEM;
	for (uint64_t at = dst; at < dst + len; at += OS_PAGE)
		if (*slot_at(at) == SLOT_ABSENT)
			slot_fill(at, NULL);
	return 0;
}

int trap_protect(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	enter_kernel("WRITEPROTECT", true);
	for (uint32_t i = 0; i < views; i++)
		if (view_addr[i] - addr < len)
			view_page[i].protected = true;
	return 0;
}

int trap_unprotect(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	enter_kernel("WRITEPROTECT off", true);
	for (uint32_t i = 0; i < views; i++)
		if (view_addr[i] - addr < len)
			view_page[i].protected = false;
	for (uint64_t at = addr; at < addr + len; at += OS_PAGE)
		wake_faults(at);
	return 0;
}

int trap_protect_huge(struct trap *trap, uint64_t addr, uint64_t len)
{
	return trap_protect(trap, addr, len);
}

int trap_discard(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	enter_kernel("MADV_DONTNEED", true);
	event("discards %llu bytes at %#llx", len, addr, 0, 0);
	if (slot_at(addr))
		for (uint64_t at = addr; at < addr + len; at += OS_PAGE)
			slot_empty(at);
	else
		kernel_unmap(addr, len);
	return 0;
}

bool trap_was_merged(struct trap *trap)
{
	(void)trap;
	return false;
}

void trap_merging_noted(struct trap *trap)
{
	(void)trap;
}

bool trap_is_ours(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	(void)addr;
	(void)len;
	return true;
}

bool trap_any_foreign(struct trap *trap, uint64_t addr, uint64_t len)
{
	return !trap_is_ours(trap, addr, len);
}

void trap_discard_ours(struct trap *trap, uint64_t addr, uint64_t len)
{
	trap_discard(trap, addr, len);
}

bool trap_readable(uint64_t addr)
{
	(void)addr;
	return true;
}

int trap_fetch(struct trap *trap, uint64_t slot, uint64_t addr)
{
	(void)trap;
	enter_kernel("process_vm_readv", true);
	struct view_page *there = kernel_view(addr);
	if (!there || there->poison || !kernel_slot_present(slot))
		return -EFAULT;
	slot_fill(slot, there->tag);
	return 0;
}

/* Discard the page at an address. Returns whether an unprotected page was there. */
bool kernel_unmark(uint64_t addr)
{
	enter_kernel("MADV_DONTNEED", true);
	const struct view_page *page = kernel_view(addr);
	bool there = page && !page->poison && !page->protected;
	event("discards 4096 bytes at %#llx", addr, 0, 0, 0);
	kernel_unmap(addr, OS_PAGE);
	return there;
}

bool trap_has_swap(void)
{
	return false;
}

int trap_descriptor(const struct trap *trap)
{
	(void)trap;
	return -1;
}

bool trap_has_bytes(uint64_t addr)
{
	return trap_present(addr);
}

int trap_present(uint64_t addr)
{
	sim_point();
	return is_there(addr); /* mincore() does not report error marks */
}

void trap_wake(struct trap *trap, uint64_t addr, uint64_t len)
{
	(void)trap;
	sim_point();
	for (uint64_t at = addr; at < addr + len; at += OS_PAGE)
		wake_faults(at);
}

/* ------------------------------------------------------------------ slots open and close */

int trap_slots_open(struct trap *trap, uint64_t len, uint64_t align, bool huge, void **ret_mem,
		    bool *ret_registered)
{
	(void)huge;
	if (kernel_refuses())
		return -ENOMEM;
	char *mem = memory_take(len, align);
	slots_registered = trap->move;
	for (uint64_t at = 0; at < len; at += OS_PAGE) {
		slot_state[((uint64_t)mem + at - ARENA) / OS_PAGE] = SLOT_ABSENT;
		slot_empty((uint64_t)mem + at);
	}
	sim.allocated += len;
	*ret_mem = mem;
	*ret_registered = trap->move;
	return 0;
}

int trap_slots_populate(struct trap *trap, void *mem, uint64_t len)
{
	(void)trap;
	for (uint64_t at = 0; at < len; at += OS_PAGE)
		slot_fill((uint64_t)mem + at, NULL);
	return 0;
}

void trap_slots_close(struct trap *trap, void *mem, uint64_t len)
{
	(void)trap;
	for (int i = 0; i < MM_POOLS_MAX; i++)
		if (sim.mm && sim.mm->pool[i] && sim.mm->pool[i]->slots == mem)
			check_slots_closed();
	for (uint64_t at = 0; at < len; at += OS_PAGE)
		if (kernel_slot_present((uint64_t)mem + at))
			slot_empty((uint64_t)mem + at);
	sim.allocated -= len;
}
