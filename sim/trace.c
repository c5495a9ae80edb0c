/* SPDX-License-Identifier: MIT */
/*
 * What happened: the last events of a run, kept as numbers and made words only when they are to be read.
 * Owns the ring of events and the report of a failure, after which the process ends.
 * May call: libc.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#define EVENTS 256u
#define SHOWN 48u

struct sim_event {
	uint64_t step, now_ns, arg[4];
	const char *format;
	uint32_t thread, ready, threads;
};

static struct sim_event ring[EVENTS];
static uint64_t count, hash;
bool sim_tracing;
const char *sim_command = "filemap-sim";
const char sim_page_state[] = "page state";

void sim_trace_reset(void)
{
	count = 0;
	hash = 0xcbf29ce484222325ull;
}

static void print_flags(FILE *out, char sign, uint32_t flags)
{
	static const char *const names[] = {"LOCKED", "WAITERS", "TICKETS", "UPTODATE", "INSTALLED", "DUP",
					    "MARK", "SPEC", "ERROR", "GONE", "HOLE", "FREE",
					    "UNPROTECTED", "SOFT", "USED", "ASKED"};
	for (int i = 0; i < 16; i++)
		if (flags >> i & 1)
			fprintf(out, " %c%s", sign, names[i]);
}

/* Frame, page, state, the one before. */
static void print_state(FILE *out, const uint64_t *arg)
{
	uint32_t now = (uint32_t)arg[2], old = (uint32_t)arg[3];
	fprintf(out, "frame %llu, page %llu:", (unsigned long long)arg[0], (unsigned long long)arg[1]);
	print_flags(out, '+', now & ~old);
	print_flags(out, '-', old & ~now);
	if (PG_PINS(now) != PG_PINS(old))
		fprintf(out, " pins %u -> %u", PG_PINS(old), PG_PINS(now));
	fprintf(out, " (%#x)", now);
}

/* Step, time, one column for each thread: * acts, . could run, blank waits; then the name and the words. */
static void print_event(FILE *out, const struct sim_event *e)
{
	fprintf(out, "%8llu %12.6f ms |", (unsigned long long)e->step, (double)e->now_ns / 1e6);
	for (uint32_t i = 0; i < e->threads; i++)
		fputc(i == e->thread ? '*' : e->ready >> i & 1 ? '.' : ' ', out);
	fprintf(out, "| %u %-10s ", e->thread, e->thread < sim.threads ? sim.thread[e->thread].name : "-");
	if (e->format == sim_page_state) {
		print_state(out, e->arg);
		fputc('\n', out);
		return;
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	fprintf(out, e->format, (unsigned long long)e->arg[0], (unsigned long long)e->arg[1],
		(unsigned long long)e->arg[2], (unsigned long long)e->arg[3]);
#pragma GCC diagnostic pop
	fputc('\n', out);
}

void sim_event(const char *format, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct sim_event *e = &ring[count++ % EVENTS];
	*e = (struct sim_event){.step = sim.step, .now_ns = sim.now_ns, .arg = {a, b, c, d},
				.format = format, .thread = sim.self ? sim.self->id : SIM_THREADS,
				.ready = sim.ready, .threads = sim.threads};
	hash = (hash ^ e->step) * 0x100000001b3ull;
	hash = (hash ^ e->thread ^ a << 8 ^ b << 24 ^ c << 40 ^ d << 52) * 0x100000001b3ull;
	if (sim_tracing)
		print_event(stdout, e);
}

uint64_t sim_trace_hash(void)
{
	return (hash ^ sim.step ^ sim.now_ns) * 0x100000001b3ull;
}

static void print_last(void)
{
	uint64_t first = count > SHOWN ? count - SHOWN : 0;
	if (sim_tracing)
		return; /* it has all been said */
	printf("the last %llu events (step, time, threads: * acts, . could run; then who, and what):\n",
	       (unsigned long long)(count - first));
	for (uint64_t i = first; i < count; i++)
		print_event(stdout, &ring[i % EVENTS]);
}

static void print_threads(void)
{
	static const char *const waits[] = {"-", "futex", "small lock", "sleep", "join", "channel", "fault"};
	printf("threads:\n");
	for (uint32_t i = 0; i < sim.threads; i++) {
		const struct sim_thread *t = &sim.thread[i];
		printf("  %2u %-10s %-8s %-10s %s%s\n", i, t->name,
		       t->state == SIM_READY ? "can run" : t->state == SIM_BLOCKED ? "waits" : "ended",
		       waits[t->wait], t->op,
		       ((const struct thread_local_area *)(const void *)t->local)->map_held
			       ? ", has the map lock" : "");
	}
}

noreturn void sim_fail(const char *format, ...)
{
	va_list args;
	static bool failing;
	if (failing)
		_exit(1);
	failing = true;
	print_last();
	print_threads();
	va_start(args, format);
	printf("FAILED: seed %llu, step %llu: ", (unsigned long long)sim.seed,
	       (unsigned long long)sim.step);
	vprintf(format, args);
	va_end(args);
	printf("\nagain: %s --from %llu --seeds 1 --trace\n", sim_command, (unsigned long long)sim.seed);
	fflush(stdout);
	_exit(1);
}

noreturn void sim_abort(void)
{
	sim_fail("abort(): might_block() was called with the map lock held");
}

/* assert() of the code under test. */
noreturn void __assert_fail(const char *expr, const char *file, unsigned line, const char *function)
{
	const char *name = strrchr(file, '/');
	sim_fail("assertion %s, %s:%u, %s()", expr, name ? name + 1 : file, line, function);
}

/* A crash of the code under test, or a loop without any scheduling point. */
static void on_signal(int signo)
{
	static uint64_t last_seed, last_step;
	if (signo != SIGALRM)
		sim_fail("signal %d", signo);
	if (sim.self && last_seed == sim.seed && last_step == sim.step)
		sim_fail("a loop without a scheduling point: no step for 5 seconds");
	last_seed = sim.seed;
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
