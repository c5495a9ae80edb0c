/* SPDX-License-Identifier: MIT */
/*
 * The trace of a run, and the report of a failure. The trace keeps the last events as numbers, and
 * formats them only for printing. A reported failure ends the process.
 */
#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define EVENTS 1024u
#define EVENTS_ALL (1u << 20) /* with --trace */
#define SHOWN 64u
#define WIDTH 150 /* columns of a printed line */
#define PREFIX 18 /* columns for step and time */

struct sim_event {
	uint64_t step, now_ns, arg[4];
	const char *format;
	uint32_t thread, ready;
	bool inside; /* during the program's part of a small world */
};

static struct sim_event few[EVENTS], *ring = few;
static uint64_t room = EVENTS;
static uint64_t count, hash, runs;
bool sim_tracing, sim_planted;
static FILE *out; /* the stream of all reports */
static void (*write_again)(char *to, size_t size); /* writes the command that repeats this run */
static struct sim_failure nobody_looks;
struct sim_failure *sim_failure = &nobody_looks;
const char sim_page_state[] = "page state";

void sim_trace_init(FILE *to, void (*again)(char *to, size_t size))
{
	out = to;
	write_again = again;
}

void sim_trace_reset(void)
{
	count = 0;
	runs++;
	hash = 0xcbf29ce484222325ull;
	if (sim_tracing && ring == few) {
		void *mem = mmap(NULL, EVENTS_ALL * sizeof(*ring), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		ring = mem == MAP_FAILED ? few : mem;
		room = mem == MAP_FAILED ? EVENTS : EVENTS_ALL;
	}
}

void sim_event(const char *format, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct sim_event *e = &ring[count++ % room];
	*e = (struct sim_event){.step = sim.step, .now_ns = sim.now_ns, .arg = {a, b, c, d},
				.format = format, .thread = sim.self ? sim.self->id : SIM_THREADS,
				.ready = sim.ready, .inside = sim.choosing};
	hash = (hash ^ e->step) * 0x100000001b3ull;
	hash = (hash ^ e->thread ^ a << 8 ^ b << 24 ^ c << 40 ^ d << 52) * 0x100000001b3ull;
}

uint64_t sim_trace_hash(void)
{
	return (hash ^ sim.step ^ sim.now_ns) * 0x100000001b3ull;
}

/* ------------------------------------------------------------------ an event in words */

static size_t flag_words(char *to, size_t size, char sign, uint32_t flags)
{
	static const char *const names[] = {"LOCKED", "WAITERS", "TICKETS", "UPTODATE", "INSTALLED", "DUP",
					    "MARK", "SPEC", "ERROR", "GONE", "HOLE", "FREE",
					    "UNPROTECTED", "SOFT", "HOT", "ASKED", "DIRTY", "WRITEBACK"};
	size_t len = 0;
	for (int i = 0; i < (int)(sizeof(names) / sizeof(*names)); i++)
		if (flags >> i & 1)
			len += (size_t)snprintf(to + len, size - len, " %c%s", sign, names[i]);
	return len;
}

/* Format a change of a state word. `arg` has the frame, the page, the new state and the old
 * state. */
static void state_words(char *to, size_t size, const uint64_t *arg)
{
	uint32_t now = (uint32_t)arg[2], old = (uint32_t)arg[3];
	size_t len = (size_t)snprintf(to, size, "frame %llu, ", (unsigned long long)arg[0]);
	if (old & PG_FREE) /* the frame's new page is not yet written down */
		len += (size_t)snprintf(to + len, size - len, "taken:");
	else
		len += (size_t)snprintf(to + len, size - len, "page %llu:", (unsigned long long)arg[1]);
	len += flag_words(to + len, size - len, '+', now & ~old);
	len += flag_words(to + len, size - len, '-', old & ~now);
	if (PG_PINS(now) != PG_PINS(old))
		snprintf(to + len, size - len, " pins %u -> %u", PG_PINS(old), PG_PINS(now));
}

static void event_words(char *to, size_t size, const struct sim_event *e)
{
	if (e->format == sim_page_state) {
		state_words(to, size, e->arg);
		return;
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(to, size, e->format, (unsigned long long)e->arg[0], (unsigned long long)e->arg[1],
		 (unsigned long long)e->arg[2], (unsigned long long)e->arg[3]);
#pragma GCC diagnostic pop
}

/* ------------------------------------------------------------------ one column per thread */

struct table {
	uint32_t column[SIM_THREADS + 1]; /* column of each thread, from 1; 0: none */
	uint32_t thread[SIM_THREADS + 1];
	uint32_t columns, width;
};

static void add_column(struct table *t, uint32_t thread)
{
	t->thread[t->columns++] = thread;
	t->column[thread] = t->columns;
}

/* Return whether a short trace shows the event. A short trace shows how pages change while the
 * program runs, but no pins. */
static bool tells(const struct sim_event *e)
{
	uint32_t changed = (uint32_t)(e->arg[2] ^ e->arg[3]);
	return e->inside && (e->format != sim_page_state ||
			     (changed & (PG_LOCKED | PG_UPTODATE | PG_INSTALLED | PG_GONE | PG_DIRTY | PG_WRITEBACK)));
}

/* Give each thread with an event a column: first the program's threads, then the library's. */
static void make_columns(struct table *t, uint64_t first, bool brief)
{
	uint64_t acts = 0;
	memset(t, 0, sizeof(*t));
	for (uint64_t i = first; i < count; i++)
		if (!brief || tells(&ring[i % room]))
			acts |= 1ull << ring[i % room].thread;
	for (int serves = 0; serves < 2; serves++)
		for (uint32_t i = 0; i < sim.threads; i++)
			if (acts >> i & 1 && sim.thread[i].idle == serves)
				add_column(t, i);
	t->width = t->columns ? (WIDTH - PREFIX) / t->columns : 1;
	t->width = t->width > 40 ? 40 : t->width < 8 ? 8 : t->width;
}

static void print_header(const struct table *t)
{
	fprintf(out, "%7s %9s ", "step", "ms");
	for (uint32_t i = 0; i < t->columns; i++) {
		char name[40];
		snprintf(name, sizeof(name), "%s-%u", sim.thread[t->thread[i]].name, t->thread[i]);
		if (i + 1 < t->columns)
			fprintf(out, "%-*.*s", (int)t->width, (int)t->width - 1, name);
		else
			fputs(name, out);
	}
	fputc('\n', out);
}

/* Return how many bytes of the words fit on a line of this width. */
static size_t line_of(const char *words, size_t width)
{
	size_t len = strlen(words);
	if (len <= width)
		return len;
	for (size_t i = width; i > width / 3; i--)
		if (words[i] == ' ')
			return i;
	return width;
}

/* Print the event's words in the column of its thread, after a `*`. A `.` marks each thread that
 * could run. */
static void print_event(const struct table *t, const struct sim_event *e)
{
	char words[300];
	uint32_t at = e->thread < SIM_THREADS && t->column[e->thread] ? t->column[e->thread] - 1 : 0;
	size_t start = (size_t)at * t->width, most = WIDTH - PREFIX - 2 - start;
	const char *rest = words;
	event_words(words, sizeof(words), e);
	for (bool head = true; head || *rest; head = false) {
		char line[WIDTH + 200];
		size_t part = line_of(rest, most < t->width - 3 ? t->width - 3 : most);
		memset(line, ' ', sizeof(line));
		for (uint32_t i = 0; head && i < t->columns; i++)
			line[i * t->width] = e->ready >> t->thread[i] & 1 ? '.' : ' ';
		line[start] = head ? '*' : ' ';
		line[start + 1] = ' ';
		memcpy(line + start + 2, rest, part);
		size_t end = start + 2 + part;
		if (end < sizeof(line) - 1 && end < t->columns * (size_t)t->width) {
			line[end] = ' ';
			end = t->columns * (size_t)t->width;
		}
		while (end && line[end - 1] == ' ')
			end--;
		if (head)
			fprintf(out, "%7llu %9.4f ", (unsigned long long)e->step, (double)e->now_ns / 1e6);
		else
			fprintf(out, "%*s", PREFIX, "");
		fprintf(out, "%.*s\n", (int)end, line);
		rest += part;
		while (*rest == ' ')
			rest++;
	}
}

/* Print the last `most` events, or all kept events if `most` is 0. With `brief`, print only the
 * events of a short trace. */
void sim_trace_print(uint64_t most, bool brief)
{
	struct table table;
	uint64_t first = count > room ? count - room : 0;
	if (most && count > most)
		first = count - most;
	make_columns(&table, first, brief);
	print_header(&table);
	for (uint64_t i = first; i < count; i++)
		if (!brief || tells(&ring[i % room]))
			print_event(&table, &ring[i % room]);
}

static void print_threads(void)
{
	static const char *const waits[] = {"-",    "futex",   "small lock", "sleep",
					    "join", "channel", "fault"};
	fprintf(out, "threads:\n");
	for (uint32_t i = 0; i < sim.threads; i++) {
		const struct sim_thread *t = &sim.thread[i];
		fprintf(out, "  %2u %-10s %-8s %-10s %s%s\n", i, t->name,
		       t->state == SIM_READY ? "can run" : t->state == SIM_BLOCKED ? "waits" : "ended",
		       waits[t->wait], t->op,
		       ((const struct thread_local_area *)(const void *)t->local)->map_held
			       ? ", has the map lock" : "");
	}
}

/* ------------------------------------------------------------------ a failure */

/* Reduce a failure's words to its kind: replace each number with `#`. The same fault has the same
 * kind in another run. */
static void make_kind(char *to, size_t size, const char *words)
{
	size_t len = 0;
	while (*words && len + 1 < size) {
		if (*words >= '0' && *words <= '9') {
			words += words[0] == '0' && words[1] == 'x' ? 2 : 0;
			while ((*words >= '0' && *words <= '9') || (*words >= 'a' && *words <= 'f'))
				words++;
			to[len++] = '#';
		} else {
			to[len++] = *words++;
		}
	}
	to[len] = 0;
}

static void report(void)
{
	const struct sim_failure *f = sim_failure;
	char again[2000];
	write_again(again, sizeof(again));
	if (sim.small)
		fprintf(out, "FAILED: world %s, step %llu: %s\n", sim.small->name,
			(unsigned long long)f->step, f->words);
	else
		fprintf(out, "FAILED: seed %llu, step %llu: %s\n", (unsigned long long)f->seed,
			(unsigned long long)f->step, f->words);
	fprintf(out, "again: %s\n", again);
	fprintf(out, "the last events (* acts, . could run):\n");
	sim_trace_print(sim_tracing ? 0 : SHOWN, false);
	print_threads();
	fflush(out);
}

/* Only the first process that fails reports its failure. The other processes end silently. */
noreturn void sim_fail(const char *format, ...)
{
	va_list args;
	if (__atomic_exchange_n(&sim_failure->failed, 1, __ATOMIC_SEQ_CST))
		_exit(1);
	va_start(args, format);
	vsnprintf(sim_failure->words, sizeof(sim_failure->words), format, args);
	va_end(args);
	make_kind(sim_failure->kind, sizeof(sim_failure->kind), sim_failure->words);
	sim_failure->seed = sim.seed;
	sim_failure->step = sim.step;
	if (!sim_failure->quiet)
		report();
	_exit(1);
}

noreturn void sim_abort(void)
{
	sim_fail("abort(): might_block() was called with the map lock held");
}

/* assert() of the code under test calls this function. */
noreturn void __assert_fail(const char *expr, const char *file, unsigned line, const char *function)
{
	const char *name = strrchr(file, '/');
	sim_fail("assertion %s, %s:%u, %s()", expr, name ? name + 1 : file, line, function);
}

/* The code under test has crashed, or loops without a scheduling point. */
static void on_signal(int signo)
{
	static uint64_t last_run, last_step;
	if (signo != SIGALRM)
		sim_fail("signal %d", signo);
	if (sim.self && last_run == runs && last_step == sim.step)
		sim_fail("a loop without a scheduling point: no step for 5 seconds");
	last_run = runs;
	last_step = sim.step;
}

void sim_trace_install_handlers(void)
{
	static char stack[64 << 10];
	const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct itimerval every = {{5, 0}, {5, 0}};
	sigaltstack(&alt, NULL);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}
